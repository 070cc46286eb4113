package contracttest

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// What the contract says in words and its schemas cannot: held against every answer.

var validTraceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func (s *suite) checkConventions(p *pending) {
	r := p.reply
	echoed := r.header.Get("X-Trace-ID")
	if sent := p.request.Header.Get("X-Trace-ID"); validTraceID.MatchString(sent) && echoed != sent {
		s.found(r, "/header/X-Trace-ID", "is %q and not what was sent, %q", echoed, sent)
	}
	if token := r.header.Get("X-Consistency-Token"); token > s.token {
		s.token = token
	}
	if tag := r.header.Get("ETag"); tag != "" && r.status == http.StatusOK {
		key := r.request + " " + tag
		if before, seen := s.tags[key]; seen && !bytes.Equal(before, r.body) {
			s.found(r, "/header/ETag", "%s stood for other bytes before", tag)
		}
		s.tags[key] = r.body
	}
	if cache := r.header.Get("Cache-Control"); cache != "" && cache != "private, no-cache" {
		s.found(r, "/header/Cache-Control", "is %q and not always private, no-cache", cache)
	}
	if r.status >= 400 {
		s.checkProblem(p.op, r, p.request)
	}
}

// checkProblem holds a refusal against the operation's codes and against the registry that the address publishes.
func (s *suite) checkProblem(op *operation, r reply, request *http.Request) {
	p := r.problem
	differs := func(field string, got, want any) {
		if got != want {
			s.found(r, "/body/"+field, "is %v and not %v", got, want)
		}
	}
	if op != nil && !slices.Contains(op.codes, p.Code) {
		s.found(r, "/body/code", "%q is not among the operation's x-error-codes", p.Code)
	}
	if known, ok := errcode.Lookup(errcode.Code(p.Code)); ok && known.Status != r.status {
		s.found(r, "/status", "is not that of %s, %d", p.Code, known.Status)
	}
	// A repetition has the bytes of the first answer: its trace id and its language.
	replayed := r.header.Get("Idempotency-Replayed") == "true"
	differs("status", p.Status, int32(r.status))
	if !replayed {
		differs("trace_id", p.TraceID, r.header.Get("X-Trace-ID"))
	}
	differs("instance", p.Instance, request.URL.EscapedPath())
	differs("type", p.Type, "/v1/errors/"+p.Code)
	if s.registry == nil {
		return // while it is read
	}
	e, ok := s.registry[p.Code]
	if !ok {
		s.found(r, "/body/code", "%q is not in the registry", p.Code)
		return
	}
	differs("status", p.Status, e.Status)
	differs("retryable", p.Retryable, e.Retryable)
	differs("title", p.Title, e.Title)
	differs("detail", p.Detail, e.Description)
	want := e.Message.En
	if strings.HasPrefix(request.Header.Get("Accept-Language"), "zh") {
		want = e.Message.ZhCN
	}
	if !replayed {
		differs("message", p.Message, want)
	}
}

// checkStray holds an answer that belongs to no operation against what every refusal carries.
func (s *suite) checkStray(r reply) {
	if media := r.header.Get("Content-Type"); media != "application/problem+json" {
		s.found(r, "/header/Content-Type", "is %q and not application/problem+json", media)
	}
	if !validTraceID.MatchString(r.header.Get("X-Trace-ID")) {
		s.found(r, "/header/X-Trace-ID", "is missing or malformed")
	}
	if s.contract.problem == nil {
		s.found(r, "/body", "the contract has no schema Problem")
		return
	}
	var v any
	decode(r, &v)
	for _, f := range validateValue(s.contract.problem, v) {
		s.found(r, f.pointer, "%s", f.message)
	}
}

// checkRequest holds the request itself against the contract: what is served must be good to it, what is refused for its body or its
// key bad.
func (s *suite) checkRequest(ctx context.Context, p *pending) {
	bad := slices.Contains([]errcode.Code{errcode.REQ002, errcode.REQ004, errcode.IDEM004}, errcode.Code(p.reply.problem.Code))
	if p.reply.status >= 400 && !bad {
		return
	}
	switch wrong := p.op.accepts(ctx, s.judged, p.request, p.body, p.reply.call.arg); {
	case wrong != "" && !bad:
		s.found(p.reply, "/request", "was served although the contract refuses it: %s", wrong)
	case wrong == "" && bad:
		s.found(p.reply, "/request", "was refused with %s although the contract allows it", p.reply.problem.Code)
	}
}
