package contracttest

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// sameKind is how many findings of one kind at one place are kept: the next ones say nothing new.
const sameKind = 5

// foundf notes a finding about an answer. A request that the end of the run has cut off shows nothing.
func (s *suite) foundf(r reply, pointer, format string, args ...any) {
	if r.err != nil && r.sent != nil && r.sent.Context().Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	message := fmt.Sprintf(format, args...)
	kind := fmt.Sprint(s.part, " ", r.call.op, " ", r.status, " ", places.ReplaceAllString(pointer, "/*"), " ", message[:min(len(message), 24)])
	if s.kinds[kind]++; s.kinds[kind] > sameKind {
		s.hidden++
		return
	}
	s.findings = append(s.findings, Finding{
		Part: s.part, Operation: r.call.op, Request: r.request, Status: r.status, Pointer: pointer, TraceID: r.traceID,
		Message: message, Repeat: r.curl(s.keyName),
	})
}

// places are the indexes in a pointer.
var places = regexp.MustCompile(`/[0-9]+`)

// foundIf notes a finding if the condition holds.
func (s *suite) foundIf(wrong bool, r reply, pointer, format string, args ...any) {
	if wrong {
		s.foundf(r, pointer, format, args...)
	}
}

// curl sends the request again, without its trace id. A long body is left out.
func (r reply) curl(keyName func(string) string) string {
	if r.sent == nil {
		return ""
	}
	quote := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	line := "curl -i -X " + r.sent.Method + " " + quote(r.sent.URL.String())
	for _, name := range sortedKeys(r.sent.Header) {
		value := r.sent.Header.Get(name)
		switch {
		case name == "Authorization" && strings.HasPrefix(value, "Bearer og_"):
			line += ` -H "Authorization: Bearer $` + keyName(strings.TrimPrefix(value, "Bearer ")) + `"`
		case name != "User-Agent" && name != "X-Trace-Id" && name != "Expect":
			line += " -H " + quote(name+": "+value)
		}
	}
	if len(r.content) > 2000 || !utf8.Valid(r.content) || bytes.ContainsRune(r.content, 0) {
		return line + fmt.Sprintf(" # and a body of %d bytes", len(r.content))
	}
	if r.content != nil {
		line += " --data-binary " + quote(string(r.content))
	}
	return line
}
