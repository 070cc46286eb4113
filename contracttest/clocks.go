package contracttest

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// clock learns how the address's clock differs from ours, from the first Date that it sends.
func (f *facts) clock(r reply, now time.Time) {
	if at, err := http.ParseTime(r.header.Get("Date")); err == nil && !f.synced {
		f.skew, f.synced = at.Sub(now), true
	}
}

// slack is by how much the address's clocks may differ from each other and from ours.
const slack = 10 * time.Second

var (
	sixDigits = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	birth     = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) // there was no Ordergate before
	// ahead are the times that lie in the future.
	ahead = map[string]bool{"reservation_expires_at": true, "expires_at": true, "next_try_at": true}
)

// maxHold is longer than any order is held for its payment, or a step of its saga waits.
const maxHold = 24 * time.Hour

// checkClocks: every time has six digits, none is older than the program, none of this run is older than the run or lies in the future.
func (s *suite) checkClocks(r reply, o map[string]any, at string, wrong wrongFact) {
	now := s.now().Add(s.facts.skew)
	_, name, _ := kindOf(o)
	own := s.isOwn(o) || s.facts.things[name] != nil && s.facts.things[name].own || r.op.path == "/v1/orders/{order_id}/saga" && s.facts.things[r.call.arg] != nil && s.facts.things[r.call.arg].own
	times := map[string]time.Time{}
	for name, value := range o {
		text, isText := value.(string)
		if !isText || !strings.HasSuffix(name, "_at") && name != "as_of" || strings.HasSuffix(at, "/metadata") {
			continue
		}
		wrong(!sixDigits.MatchString(text), at+"/"+name, "%q is not a time in UTC with six digits of seconds", text)
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			continue
		}
		times[name] = t
		wrong(t.Before(birth), at+"/"+name, "is %s, before there was any Ordergate", text)
		if ahead[name] {
			wrong(t.After(now.Add(maxHold)), at+"/"+name, "is %s, more than %v from now", text, maxHold)
		} else {
			wrong(t.After(now.Add(slack)), at+"/"+name, "is %s, in the future: it is %s", text, now.UTC().Format(time.RFC3339))
		}
		wrong(own && t.Before(s.begin.Add(s.facts.skew-slack)), at+"/"+name, "is %s, and what it is about was made in this run, which began at %s", text, s.begin.UTC().Format(time.RFC3339))
	}
	for _, pair := range [][2]string{{"created_at", "updated_at"}, {"created_at", "delivered_at"}, {"started_at", "finished_at"}, {"created_at", "cancel_requested_at"}, {"created_at", "reservation_expires_at"}} {
		first, one := times[pair[0]]
		then, other := times[pair[1]]
		wrong(one && other && then.Before(first), at+"/"+pair[1], "is before %s", pair[0])
	}
	if age, err := strconv.ParseInt(r.header.Get("Age"), 10, 64); err == nil && at == "/body" && own && !times["updated_at"].IsZero() && r.fresh() {
		wrong(time.Duration(age)*time.Second > now.Sub(times["updated_at"])+slack, "/header/Age", "is %d, and what was read changed at %s", age, times["updated_at"].Format(time.RFC3339))
	}
}
