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

func document(body view.Body, contentType string, ifNoneMatch *string) answer {
	a := answer{status: http.StatusOK, contentType: contentType, body: body}
	if holds(ifNoneMatch, body.ETag) {
		a.status = http.StatusNotModified
	}
	return a
}

// GetOpenAPIJSON answers the contract.
func (s *Server) GetOpenAPIJSON(_ context.Context, r api.GetOpenAPIJSONRequestObject) (api.GetOpenAPIJSONResponseObject, error) {
	return document(s.contract.json, "application/json", r.Params.IfNoneMatch), nil
}

// GetOpenAPIYAML answers the contract.
func (s *Server) GetOpenAPIYAML(_ context.Context, r api.GetOpenAPIYAMLRequestObject) (api.GetOpenAPIYAMLResponseObject, error) {
	return document(s.contract.yaml, "application/yaml", r.Params.IfNoneMatch), nil
}

// ListErrors answers the error registry.
func (s *Server) ListErrors(_ context.Context, r api.ListErrorsRequestObject) (api.ListErrorsResponseObject, error) {
	return document(s.contract.errors, "application/json", r.Params.IfNoneMatch), nil
}

// GetError answers one code of it: REQ_005 if there is none.
func (s *Server) GetError(_ context.Context, r api.GetErrorRequestObject) (api.GetErrorResponseObject, error) {
	body, ok := s.contract.byCode[r.Code]
	if !ok {
		return nil, apierr.E(errcode.REQ005)
	}
	return document(body, "application/json", r.Params.IfNoneMatch), nil
}
