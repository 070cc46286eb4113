package contracttest

import (
	"fmt"
	"slices"
	"strings"
)

// Headers of answers that the contract does not name are either those of HTTP and of browsers, which any server or proxy may set, or strangers.
// A stranger is noted in the report and is no finding: the proxy of an installation may add it, and no client relies on its absence. A cookie is
// one. The contract says that none is needed nor looked at; a client that keeps one is told by it, or tied to an instance, without its key.

// anybodys are headers that the contract need not name, spelled as net/http does.
var anybodys = strings.Fields("Accept-Ranges Age Allow Alt-Svc Cache-Control Connection Content-Encoding Content-Language Content-Length Content-Security-Policy " +
	"Content-Type Cross-Origin-Embedder-Policy Cross-Origin-Opener-Policy Cross-Origin-Resource-Policy Date Keep-Alive Nel Origin-Agent-Cluster Permissions-Policy " +
	"Referrer-Policy Report-To Reporting-Endpoints Server Server-Timing Strict-Transport-Security Timing-Allow-Origin Traceparent Tracestate Trailer " +
	"Transfer-Encoding Upgrade Vary Via X-Accel-Buffering X-Content-Type-Options X-Frame-Options")

// checkStrangers looks at the names of an answer's headers. Each of them is told once: it is mostly in all answers.
func (s *suite) checkStrangers(r reply) {
	cookie := false
	s.mu.Lock()
	for name := range r.header {
		switch {
		case name == "Set-Cookie":
			cookie = s.strangers[name] == 0
			s.strangers[name]++
		case !s.contract.headers[name] && !slices.Contains(anybodys, name) && !strings.HasPrefix(name, "Access-Control-"):
			s.strangers[name]++
		}
	}
	s.mu.Unlock()
	s.foundIf(cookie, r, "/header/Set-Cookie", "is there, and the contract has no cookies. This is told once")
}

// notes are what the report tells beside its findings.
func (s *suite) notes() (notes []string) {
	for _, name := range sortedKeys(s.strangers) {
		if name != "Set-Cookie" {
			notes = append(notes, fmt.Sprintf("%d answers have the header %s, which neither the contract nor HTTP names: a proxy may have added it", s.strangers[name], name))
		}
	}
	return notes
}
