package edge

import (
	"context"
	"net/http"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/view"
)

// contractDocuments are the answers that never change while a process lives.
type contractDocuments struct {
	json, yaml view.Body
	errors     view.Body
	byCode     map[string]view.Body
}

func newContractDocuments() *contractDocuments {
	d := &contractDocuments{json: view.Raw(api.OpenAPIJSON), yaml: view.Raw(api.OpenAPIYAML), byCode: map[string]view.Body{}}
	list := api.ErrorCodeList{Data: []api.ErrorCode{}}
	for _, info := range errcode.All() {
		e := api.ErrorCode{
			Code: string(info.Code), Status: int32(info.Status), Retryable: info.Retryable, Title: info.Title, Description: info.Description,
		}
		if e.Message = (api.ErrorMessage{En: info.EN, ZhCN: info.ZH}); info.Rejection != "" {
			e.Rejection = &api.ErrorRejection{Description: info.Rejection}
		}
		list.Data = append(list.Data, e)
		d.byCode[e.Code], _ = view.Finish(e, 0) // plain strings always can be encoded
	}
	d.errors, _ = view.Finish(list, 0)
	return d
}

func (r *request) document(body view.Body, contentType string) (response, error) {
	return r.unlessHeld(response{status: http.StatusOK, contentType: contentType, body: body}), nil
}

// GetOpenAPIJSON answers the contract.
func (h handlers) GetOpenAPIJSON(_ context.Context, r *request) (response, error) {
	return r.document(h.documents.json, "application/json")
}

// GetOpenAPIYAML answers the contract.
func (h handlers) GetOpenAPIYAML(_ context.Context, r *request) (response, error) {
	return r.document(h.documents.yaml, "application/yaml")
}

// ListErrors answers the error registry.
func (h handlers) ListErrors(_ context.Context, r *request) (response, error) {
	return r.document(h.documents.errors, "application/json")
}

// GetError answers one code of it: REQ_005 if there is none.
func (h handlers) GetError(_ context.Context, r *request, p api.GetErrorParams) (response, error) {
	body, ok := h.documents.byCode[p.Code]
	if !ok {
		return response{}, apierr.E(errcode.REQ005)
	}
	return r.document(body, "application/json")
}
