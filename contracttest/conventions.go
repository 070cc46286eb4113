package contracttest

import (
	"bytes"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Every answer is held against these conventions, which the contract states in words and its schemas cannot express.

var validTraceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func (s *suite) checkConventions(r reply) {
	echoed := r.header.Get("X-Trace-ID")
	sent := r.sent.Header.Get("X-Trace-ID")
	s.foundIf(validTraceID.MatchString(sent) && echoed != sent, r, "/header/X-Trace-ID", "is %q and not what was sent, %q", echoed, sent)
	s.foundIf(s.learn(r), r, "/header/ETag", "%q stood for other bytes before", r.header.Get("ETag"))
	cache := r.header.Get("Cache-Control")
	s.foundIf(cache != "" && cache != "private, no-cache", r, "/header/Cache-Control", "is %q and not always private, no-cache", cache)
	if r.status >= 400 {
		s.checkProblem(r)
	}
}

// learn keeps the greatest token, and the bytes that an ETag stands for. It tells whether it stood for others before.
func (s *suite) learn(r reply) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = max(s.token, r.header.Get("X-Consistency-Token"))
	tag := r.header.Get("ETag")
	if tag == "" || r.status != http.StatusOK {
		return false
	}
	key := r.request + " " + tag
	before, seen := s.facts.bodies[key]
	if !seen && len(s.facts.bodies) < maxTags {
		s.facts.bodies[key] = r.body
	}
	return seen && !bytes.Equal(before, r.body)
}

// maxTags bounds the memory that a run takes for ETags.
const maxTags = 20_000

// checkProblem holds a refusal against the operation's codes and against the registry that the address publishes.
func (s *suite) checkProblem(r reply) {
	p := r.problem
	differs := func(field string, got, want any) {
		s.foundIf(got != want, r, "/body/"+field, "is %#v and not %#v", got, want)
	}
	s.foundIf(r.op != nil && !slices.Contains(r.op.codes, p.Code), r, "/body/code", "%q is not among the operation's x-error-codes", p.Code)
	known, ok := errcode.Lookup(errcode.Code(p.Code))
	s.foundIf(ok && known.Status != r.status, r, "/status", "is not that of %s, %d", p.Code, known.Status)
	// A repetition has the bytes of the first answer: its trace id and its language.
	replayed := r.header.Get("Idempotency-Replayed") == "true"
	differs("status", p.Status, int32(r.status))
	if !replayed {
		differs("trace_id", p.TraceID, r.header.Get("X-Trace-ID"))
	}
	path := r.sent.URL.EscapedPath() // a long one is cut
	s.foundIf(p.Instance != path && (len(p.Instance) < 200 || !strings.HasPrefix(path, p.Instance)), r, "/body/instance", "is %q and not %q", p.Instance, path)
	s.foundIf(!strings.HasSuffix(p.Type, "/"+p.Code), r, "/body/type", "is %q and does not end with the code", p.Type)
	if s.registry == nil {
		return // while it is read
	}
	e, ok := s.registry[p.Code]
	if !ok {
		s.foundf(r, "/body/code", "%q is not in the registry", p.Code)
		return
	}
	differs("status", p.Status, e.Status)
	differs("retryable", p.Retryable, e.Retryable)
	differs("title", p.Title, e.Title)
	differs("detail", p.Detail, e.Description)
	want, language := e.Message.En, r.sent.Header.Get("Accept-Language")
	if strings.HasPrefix(language, "zh") || !strings.HasPrefix(language, "en") && p.Message == e.Message.ZhCN && strings.Contains(language, "zh") {
		want = e.Message.ZhCN
	}
	languages := []bool{want != e.Message.En}
	if !replayed {
		differs("message", p.Message, want)
	} else {
		languages = []bool{false, true}
	}
	s.checkFaults(r, languages...)
}

// checkStray holds an answer that belongs to no operation against what every refusal carries.
func (s *suite) checkStray(r reply) {
	media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	s.foundIf(media != "application/problem+json", r, "/header/Content-Type", "is %q and not application/problem+json", r.header.Get("Content-Type"))
	s.foundIf(!validTraceID.MatchString(r.header.Get("X-Trace-ID")), r, "/header/X-Trace-ID", "is missing or malformed")
	var v any
	decode(r, &v)
	for _, f := range s.contract.at("components", "schemas", "Problem").check("/body", v, rules{}) {
		s.foundf(r, f.pointer, "%s", f.message)
	}
}

// checkRequest holds the request itself against the contract: what is served must be good to it, what is refused for its body or its
// key bad.
func (s *suite) checkRequest(r reply) {
	bad := slices.Contains([]errcode.Code{errcode.REQ002, errcode.REQ004, errcode.IDEM004}, errcode.Code(r.problem.Code))
	ofParameter := r.problem.Code == string(errcode.REQ003)
	if r.status >= 400 && !bad && !ofParameter {
		return
	}
	wrong, broken := r.op.accepts(r.sent, r.call.arg, r.content)
	s.checkBroken(r, broken)
	if ofParameter {
		return // it may be wrong in more than its form
	}
	s.foundIf(wrong != "" && !bad, r, "/request", "was served although the contract refuses it: %s", wrong)
	more := slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { // than the schema of the request can say
		return f.Rule == string(errcode.RuleUnique) || mergedRule(r, f)
	})
	s.foundIf(wrong == "" && bad && !more, r, "/request", "was refused with %q although the contract allows it", r.problem.Code)
}
