package contracttest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// stream: a final order is followed from any of its events to the end at once, and from the last one there is nothing to follow.
func (s *suite) stream(ctx context.Context, _ *placed) {
	p, ok := s.refusal(ctx)
	if !ok {
		return
	}
	var list struct{ Data []json.RawMessage }
	if _, ok = s.get(ctx, &list, call{op: "listOrderEvents", arg: p.ID, query: values("limit", "100")}, http.StatusOK); !ok {
		return
	}
	follow := func(last string) call { return call{op: "streamOrder", arg: p.ID}.with("Last-Event-ID", last) }
	for after := range list.Data {
		last := strconv.Itoa(after)
		if after == 0 {
			last = ""
		}
		r, ok := s.get(ctx, nil, follow(last), http.StatusOK)
		var want strings.Builder
		for i, data := range list.Data[after:] {
			var e event
			_ = json.Unmarshal(data, &e)
			fmt.Fprintf(&want, "id: %d\nevent: %s\ndata: %s\n\n", after+i+1, e.Type, data)
		}
		want.WriteString("event: end\ndata: {\"reason\":\"terminal\"}\n\n")
		s.foundIf(ok && !strings.HasPrefix(string(r.body), ":"), r, "/body", "after %q does not begin with a comment, which comes at once", last)
		got := comments.ReplaceAllString(string(r.body), "")
		if token := streamToken.FindStringSubmatch(got); token != nil {
			got = strings.Replace(got, token[0], "", 1)
			if order := s.facts.things[p.ID]; order != nil {
				s.foundIf(token[1] <= order.since, r, "/body", "begins with the token %q, from before the order was placed: %q was known then", token[1], order.since)
			}
			s.get(ctx, nil, call{op: "getOrder", arg: p.ID}.with("X-Consistency-Token", token[1]), http.StatusOK)
		} else {
			s.foundIf(ok, r, "/body", "it does not begin with a token")
		}
		s.foundIf(ok && got != want.String(), r, "/body", "after %q is %q, and the events are %q", last, got, want.String())
	}
	s.get(ctx, nil, follow(strconv.Itoa(len(list.Data))), http.StatusNoContent)
	s.get(ctx, nil, follow("9999999999999999"), http.StatusNoContent)
	for _, bad := range []string{"one", "-1", "01", "1.5", "10000000000000000"} {
		s.refused(ctx, errcode.REQ003, follow(bad), "/header/Last-Event-ID")
	}
	s.refused(ctx, errcode.REQ007, follow("").with("Accept", "application/json"))
	s.badToken(ctx, follow(""))
	s.refused(ctx, errcode.REQ003, call{op: "streamOrder", arg: "ord_1"}, "/path/order_id")
	s.refused(ctx, errcode.ORD001, call{op: "streamOrder", arg: forge(p.ID)})
	s.refused(ctx, errcode.ORD001, call{op: "streamOrder", arg: forge(p.ID)}.with("Accept-Language", "zh-CN"))
}

// comments of a stream of server-sent events.
var comments = regexp.MustCompile(`(?m)^:.*\n\n`)

// streamToken is the message that stands before the events of a stream.
var streamToken = regexp.MustCompile(`\Aevent: token\ndata: \{"token":"([^"]+)"\}\n\n`)
