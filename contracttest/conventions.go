package contracttest

import (
	"bytes"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// Every answer is held against these conventions, which the contract states in words and its schemas cannot express.

var validTraceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func (s *suite) checkConventions(r reply) {
	echoed := r.header.Get("X-Trace-ID")
	if sent := r.sent.Header.Get("X-Trace-ID"); validTraceID.MatchString(sent) && echoed != sent {
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
		s.checkProblem(r)
	}
}

// checkProblem holds a refusal against the operation's codes and against the registry that the address publishes.
func (s *suite) checkProblem(r reply) {
	p := r.problem
	differs := func(field string, got, want any) {
		if got != want {
			s.found(r, "/body/"+field, "is %v and not %v", got, want)
		}
	}
	if r.op != nil && !slices.Contains(r.op.codes, p.Code) {
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
	differs("instance", p.Instance, r.sent.URL.EscapedPath())
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
	if strings.HasPrefix(r.sent.Header.Get("Accept-Language"), "zh") {
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
	var v any
	decode(r, &v)
	for _, f := range s.contract.at("components", "schemas", "Problem").check("/body", v) {
		s.found(r, f.pointer, "%s", f.message)
	}
}

// checkRequest holds the request itself against the contract: what is served must be good to it, what is refused for its body or its
// key bad.
func (s *suite) checkRequest(r reply) {
	bad := slices.Contains([]errcode.Code{errcode.REQ002, errcode.REQ004, errcode.IDEM004}, errcode.Code(r.problem.Code))
	if r.status >= 400 && !bad {
		return
	}
	switch wrong := r.op.accepts(r.sent, r.call.arg, r.content); {
	case wrong != "" && !bad:
		s.found(r, "/request", "was served although the contract refuses it: %s", wrong)
	case wrong == "" && bad:
		s.found(r, "/request", "was refused with %s although the contract allows it", r.problem.Code)
	}
}
