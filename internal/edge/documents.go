package edge

import (
	"context"
	"net/http"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/view"
)

// contractDocuments are the responses that never change while a process lives, by their path or error code.
func contractDocuments() map[string]response {
	finished := func(contentType string, body view.Body) response {
		return response{status: http.StatusOK, contentType: contentType, etag: body.ETag, body: string(body.Bytes)}
	}
	documents := map[string]response{
		"/openapi.json": finished("application/json", view.Raw(api.OpenAPIJSON)),
		"/openapi.yaml": finished("application/yaml", view.Raw(api.OpenAPIYAML)),
	}
	list := api.ErrorCodeList{Data: []api.ErrorCode{}}
	for _, info := range errcode.All() {
		e := api.ErrorCode{
			Code: string(info.Code), Status: int32(info.Status), Retryable: info.Retryable, Title: info.Title, Description: info.Description,
			Message: api.ErrorMessage{En: info.EN, ZhCN: info.ZH},
		}
		if info.Rejection != "" {
			e.Rejection = &api.ErrorRejection{Description: info.Rejection}
		}
		list.Data = append(list.Data, e)
		body, _ := view.Finish(e, 0) // plain strings always can be encoded
		documents[e.Code] = finished("application/json", body)
	}
	body, _ := view.Finish(list, 0)
	documents["/v1/errors"] = finished("application/json", body)
	return documents
}

// GetOpenAPIJSON returns the contract.
func (h handlers) GetOpenAPIJSON(_ context.Context, r *request) (response, error) {
	return r.notModified(h.documents["/openapi.json"]), nil
}

// GetOpenAPIYAML returns the contract.
func (h handlers) GetOpenAPIYAML(_ context.Context, r *request) (response, error) {
	return r.notModified(h.documents["/openapi.yaml"]), nil
}

// ListErrors returns the error registry.
func (h handlers) ListErrors(_ context.Context, r *request) (response, error) {
	return r.notModified(h.documents["/v1/errors"]), nil
}

// GetError returns one code of it: REQ_005 if there is none.
func (h handlers) GetError(_ context.Context, r *request, p api.GetErrorParams) (response, error) {
	document, ok := h.documents[p.Code]
	if !ok {
		return response{}, apierr.E(errcode.REQ005)
	}
	return r.notModified(document), nil
}
