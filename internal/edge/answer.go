package edge

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// answer is a finished answer: status, headers and bytes as they are sent. It stands for every operation's response type, so
// that nothing is encoded again.
type answer struct {
	status      int
	contentType string
	body        view.Body
	headers     []string // names and values in turn; an empty value is left out
}

func (a answer) write(w http.ResponseWriter) error {
	h := w.Header()
	for i := 0; i < len(a.headers); i += 2 {
		if a.headers[i+1] != "" {
			h[a.headers[i]] = []string{a.headers[i+1]}
		}
	}
	if a.body.ETag != "" {
		h["Etag"] = []string{a.body.ETag}
	}
	if a.status == http.StatusNotModified {
		w.WriteHeader(a.status)
		return nil
	}
	h["Content-Type"] = []string{a.contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(a.body.Bytes))}
	w.WriteHeader(a.status)
	_, err := w.Write(a.body.Bytes)
	return err
}

// The response types of the generated server.

func (a answer) VisitPlaceOrderResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitCancelOrderResponse(w http.ResponseWriter) error     { return a.write(w) }
func (a answer) VisitGetOrderResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitListOrdersResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitListOrderEventsResponse(w http.ResponseWriter) error { return a.write(w) }
func (a answer) VisitGetOrderSagaResponse(w http.ResponseWriter) error    { return a.write(w) }
func (a answer) VisitListProductsResponse(w http.ResponseWriter) error    { return a.write(w) }
func (a answer) VisitGetProductResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitGetInventoryResponse(w http.ResponseWriter) error    { return a.write(w) }
func (a answer) VisitListErrorsResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitGetErrorResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitGetOpenAPIJSONResponse(w http.ResponseWriter) error  { return a.write(w) }
func (a answer) VisitGetOpenAPIYAMLResponse(w http.ResponseWriter) error  { return a.write(w) }

// written is the answer of a command.
func (s *Server) written(ctx context.Context, a command.Result, applied string) answer {
	m := metaOf(ctx)
	key, replayed := "", ""
	if !a.OrderID.IsZero() {
		m.orderID = a.OrderID.Format(order.PrefixOrder)
		key = m.orderID
	}
	if a.Replayed {
		replayed = "true"
	}
	if a.Rev == 0 {
		key = "" // of a replay only the position is known
	}
	if a.Status >= 400 { // a stored refusal
		var problem struct{ Code errcode.Code }
		_ = json.Unmarshal(a.Body.Bytes, &problem) // ours
		m.code, applied = problem.Code, ""
	}
	return answer{status: a.Status, contentType: a.ContentType, body: a.Body, headers: []string{
		"Location", a.Location, "Idempotency-Replayed", replayed, "Preference-Applied", applied,
		"X-Consistency-Token", s.cfg.Signer.Sign(token.Token{Timeline: s.cfg.Timeline(), LSN: a.LSN, Key: key, Rev: a.Rev}),
	}}
}

// refused lets the answer of a refused command carry the token of the state that refused it: who reads next sees why.
func (s *Server) refused(ctx context.Context, a command.Result, err error) error {
	if a.LSN > 0 {
		metaOf(ctx).token = s.cfg.Signer.Sign(token.Token{Timeline: s.cfg.Timeline(), LSN: a.LSN})
	}
	return err
}

// read is the answer of a query: 304 if the caller holds it.
func (s *Server) read(ctx context.Context, a query.View, ifNoneMatch *string, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	metaOf(ctx).tier = a.Tier
	out := answer{status: http.StatusOK, contentType: "application/json", body: a.Body, headers: []string{
		"Cache-Control", "private, no-cache", "X-Consistency-Token", a.Token, "X-Served-By", a.Tier, "Age", strconv.Itoa(a.Age),
	}}
	if holds(ifNoneMatch, a.ETag) {
		out.status = http.StatusNotModified
	}
	return out, nil
}

// holds tells whether an If-None-Match header names the ETag.
func holds(header *string, etag string) bool {
	if header == nil {
		return false
	}
	for tag := range strings.SplitSeq(*header, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == etag || tag == "*" {
			return true
		}
	}
	return false
}

// maxWait bounds Prefer: wait.
const maxWait = 10 * time.Second

// waitOf reads wait=S from a Prefer header (RFC 7240): the time, at most maxWait, and what to answer in Preference-Applied. The
// first one counts; what cannot be understood is ignored.
func waitOf(prefer *string) (time.Duration, string) {
	if prefer == nil {
		return 0, ""
	}
	for p := range strings.SplitSeq(*prefer, ",") {
		p, _, _ = strings.Cut(p, ";")
		name, value, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
		if err != nil {
			return 0, ""
		}
		wait := min(time.Duration(seconds)*time.Second, maxWait)
		return wait, "wait=" + strconv.Itoa(int(wait/time.Second))
	}
	return 0, ""
}
