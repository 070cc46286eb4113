package contracttest

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/errcode"
)

// decidedOnData tells whether a refusal was: it depends on what is stored. An id in the path of a POST may be refused without the data, if it was never
// given out. So may an order of more than was in stock a moment ago.
func (r reply) decidedOnData() bool {
	if r.status >= 500 || r.status < 400 || r.call.fault || r.problem.Code == string(errcode.INV002) ||
		r.status == http.StatusNotFound && r.sent.Method != http.MethodGet {
		return false
	}
	family, _, _ := strings.Cut(r.problem.Code, "_")
	return slices.Contains([]string{"CAT", "CPN", "INV", "ORD", "PAY", "RFD", "SHP"}, family) ||
		slices.Contains([]errcode.Code{errcode.IDEM002, errcode.REQ010, errcode.REQ011}, errcode.Code(r.problem.Code))
}

// longestWait is how many seconds a client is asked to wait at most, but beyond the limit of its key, whose window is the most then.
const longestWait = 60

func (s *suite) checkHeaders(r reply, wrong wrongFact) {
	s.checkLimit(r, wrong)
	f := &s.facts
	got := r.header.Get("X-Consistency-Token")
	wrong(r.changes() && got != "" && got <= r.token, "/header/X-Consistency-Token", "of a change is %q, not greater than the one that was known before, %q", got, r.token)
	wrong(r.decidedOnData() && got == "", "/header/X-Consistency-Token", "is missing, and %s is decided on data", r.problem.Code)
	wrong(r.header.Get("Idempotency-Replayed") != "" && !r.again, "/header/Idempotency-Replayed", "is there, and the key was never sent before")
	applied := r.header.Get("Preference-Applied")
	wrong(applied != "" && !strings.Contains(strings.ReplaceAll(r.sent.Header.Get("Prefer"), `"`, ""), applied), "/header/Preference-Applied", "is %q, and Prefer was %q", applied, r.sent.Header.Get("Prefer"))
	if r.status == http.StatusNotModified {
		tags := r.sent.Header.Get("If-None-Match")
		wrong(tags == "", "/status", "is 304, and no If-None-Match was sent")
		wrong(tags != "*" && !strings.Contains(tags, r.header.Get("ETag")), "/header/ETag", "%q is not among those of If-None-Match, %q", r.header.Get("ETag"), tags)
		_, seen := f.bodies[r.request+" "+r.header.Get("ETag")]
		wrong(!seen && len(f.bodies) < maxTags && strings.Contains(tags, r.header.Get("ETag")) && r.op != nil && tags != "*", "/header/ETag", "%q was never given with bytes of this address", r.header.Get("ETag"))
	}
	if r.header.Get("Location") != "" && r.status < 300 {
		var made struct{ ID, Sku string }
		decode(r, &made)
		f.places[r.header.Get("Location")] = cmp.Or(made.ID, made.Sku)
		wrong(strings.Contains(r.header.Get("Location"), "://"), "/header/Location", "is %q and not a path of this address", r.header.Get("Location"))
	}
	if r.problem.Type != "" {
		f.types[r.problem.Type] = true
	}
	busy := r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable || r.problem.Code == "IDEM_003"
	seconds, err := strconv.Atoi(r.header.Get("Retry-After"))
	wrong(busy && (err != nil || seconds < 0), "/header/Retry-After", "is %q and not a number of seconds", r.header.Get("Retry-After"))
	longest := longestWait
	if told := limitPolicy.FindStringSubmatch(r.header.Get("RateLimit-Policy")); told != nil && r.status == http.StatusTooManyRequests {
		longest, _ = strconv.Atoi(told[2]) // digits alone
	}
	wrong(busy && err == nil && seconds > longest, "/header/Retry-After", "is %d, and no more than %d are promised", seconds, longest)
	age, err := strconv.Atoi(r.header.Get("Age"))
	tier := r.header.Get("X-Served-By")
	wrong(err == nil && (tier == "primary" || tier == "replica") && time.Duration(age)*time.Second > r.took+slack, "/header/Age", "is %d, and the %s was read just now", age, tier)
	wrong(r.status == http.StatusUnauthorized && !strings.HasPrefix(r.header.Get("WWW-Authenticate"), `Bearer realm="`) && r.problem.Code != "AUTH_007",
		"/header/WWW-Authenticate", "is %q of a 401", r.header.Get("WWW-Authenticate"))
}
