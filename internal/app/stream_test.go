package app

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/order"
)

// message is one of a stream.
type message struct {
	id, event string
	data      struct {
		Sequence int64  `json:"sequence"`
		Type     string `json:"type"`
		Reason   string `json:"reason"`
		Token    string `json:"token"`
	}
}

// opened is a stream that is being read.
type opened struct {
	g     *gateway
	res   *http.Response
	lines *bufio.Scanner
	leave context.CancelFunc
	token string // the last one
}

func (g *gateway) open(url, orderID, lastID string, headers ...string) *opened {
	g.t.Helper()
	ctx, leave := context.WithCancel(g.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/orders/"+orderID+"/stream", nil)
	must(g.t, err)
	r.Header.Set("Authorization", "Bearer "+aliceKey)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	must(g.t, err)
	g.t.Cleanup(func() { leave(); _ = res.Body.Close() })
	return &opened{g, res, bufio.NewScanner(res.Body), leave, ""}
}

// next is the next message but for tokens; its event is empty at the end.
func (o *opened) next() (m message) {
	o.g.t.Helper()
	for o.lines.Scan() {
		line := o.lines.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && m.event == "token":
			o.token, m = m.data.Token, message{}
		case line == "" && m.event != "":
			return m
		case name == "id":
			m.id = value
		case name == "event":
			m.event = value
		case name == "data":
			if err := json.Unmarshal([]byte(value), &m.data); err != nil {
				o.g.t.Fatal(value, err)
			}
		}
	}
	return message{}
}

// rest are the messages up to the end of the stream, in words.
func (o *opened) rest() (words []string) {
	o.g.t.Helper()
	for m := o.next(); m.event != ""; m = o.next() {
		if m.event == "end" {
			words = append(words, "end "+m.data.Reason)
			continue
		}
		if m.id != strconv.FormatInt(m.data.Sequence, 10) || m.event != m.data.Type {
			o.g.t.Errorf("%+v", m)
		}
		words = append(words, m.id+" "+m.event)
	}
	return words
}

func TestAStreamFollowsAnOrderToItsEnd(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	other := g.serve(g.assemble()) // another instance hears of changes by Redis
	placed := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"))
	streams := []*opened{g.open(g.url, placed.body.ID, ""), g.open(other, placed.body.ID, "", "X-Consistency-Token", placed.header.Get("X-Consistency-Token"))}
	for _, s := range streams {
		if h := s.res.Header; s.res.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("X-Consistency-Token") == "" || h.Get("X-Trace-Id") == "" {
			t.Fatal(s.res.Status, h)
		}
	}
	until(t, "the order is confirmed", func() bool { return g.do("GET", "/v1/orders/"+placed.body.ID, nil).body.Status == "confirmed" })
	begin := time.Now()
	if a := g.do("POST", "/v1/orders/"+placed.body.ID+"/cancel", "", "Prefer", "wait=10"); a.body.Status != "cancelled" {
		t.Fatal(a.raw)
	}
	var all []string
	for i, s := range streams {
		got := s.rest()
		if all = append(all[:0:0], got...); got[len(got)-1] != "end terminal" || time.Since(begin) > heartbeatOfStreams {
			t.Errorf("stream %d after %v: %v", i, time.Since(begin), got)
		}
	}
	list := g.do("GET", "/v1/orders/"+placed.body.ID+"/events?limit=100", nil)
	if len(all) != len(list.body.Data)+1 || all[0] != "1 order.created" {
		t.Errorf("%v, and there are %d events", all, len(list.body.Data))
	}
	if resumed := g.open(g.url, placed.body.ID, "2").rest(); !slices.Equal(resumed, all[2:]) {
		t.Errorf("after the second event: %v", resumed)
	}
	for _, last := range []string{strconv.Itoa(len(list.body.Data)), "999999999999999"} {
		if s := g.open(g.url, placed.body.ID, last); s.res.StatusCode != http.StatusNoContent || s.res.Header.Get("X-Consistency-Token") == "" {
			t.Errorf("after %s: %s", last, s.res.Status)
		}
	}
}

// A read with the token of a stream shows what its events have told, on an instance whose replica is 2 s behind and which hears of nothing.
func TestAReadIsAsNewAsTheStream(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	near := g.cfg
	g.cfg.ReplicaURLs, g.cfg.RedisURL = []string{g.db.LaggingURL(t)}, ""
	deaf := g.at(g.serve(g.assemble()))
	g.cfg = near
	placed := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"))
	path := "/v1/orders/" + placed.body.ID
	version := func(token string) int64 {
		var o struct {
			Version int64 `json:"version"`
		}
		a := deaf.do("GET", path, nil, "X-Consistency-Token", token)
		must(t, json.Unmarshal([]byte(a.raw), &o))
		return o.Version
	}
	s, seen := g.open(g.url, placed.body.ID, ""), int64(0)
	for m := s.next(); m.event != "order.confirmed"; m = s.next() {
		if seen = m.data.Sequence; s.token == "" {
			t.Fatal("an event without a token")
		}
		if v := version(s.token); v < seen {
			t.Errorf("version %d after event %d", v, seen)
		}
	}
	if seen < 2 {
		t.Errorf("%d events", seen)
	}
}

// heartbeatOfStreams is below the time after which a stream looks for itself: the changes were told.
const heartbeatOfStreams = 14 * time.Second

func TestRefusalsOfStreams(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	for name, c := range map[string]struct {
		id, last string
		headers  []string
		want     string
	}{
		"an order of another account": {id, "", []string{"Authorization", "Bearer " + bobKey}, "ORD_001"},
		"an order of nobody":          {g.components.ids.Mint(time.Now(), 1).Format("ord_"), "", nil, "ORD_001"},
		"no id":                       {"ord_1", "", nil, "REQ_003"},
		"an id of no event":           {id, "evt_1", nil, "REQ_003"},
		"a negative id":               {id, "-1", nil, "REQ_003"},
		"a forged token":              {id, "", []string{"X-Consistency-Token", "1.x"}, "REQ_003"},
		"no key":                      {id, "", []string{"Authorization", ""}, "AUTH_001"},
		"JSON alone is accepted":      {id, "", []string{"Accept", "application/json"}, "REQ_007"},
	} {
		t.Run(name, func(t *testing.T) {
			s := g.open(g.url, c.id, c.last, c.headers...)
			var problem struct {
				Code string `json:"code"`
			}
			if err := json.NewDecoder(s.res.Body).Decode(&problem); err != nil || problem.Code != c.want {
				t.Errorf("%s %s: %v", s.res.Status, problem.Code, err)
			}
		})
	}
}

// An instance that stops ends its streams, and their clients go on with another one where they stopped.
func TestAStoppingInstanceEndsItsStreams(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	server, err := g.assemble().API(map[string]*edge.Key{aliceKey: {ID: "key_1", Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: Scopes}})
	must(t, err)
	l, err := listen(t.Context(), "test", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(ctx, l, server, 10*time.Millisecond) }()
	s := g.open("http://"+l.Addr().String(), id, "")
	first := []string{s.next().event, s.next().event}
	stop()
	if rest := s.rest(); !slices.Equal(first, []string{"order.created", "order.stock_reserved"}) || !slices.Equal(rest, []string{"end draining"}) {
		t.Errorf("%v %v", first, rest)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	s = g.open(g.url, id, "2")
	if a := g.do("POST", "/v1/orders/"+id+"/cancel", ""); a.status != http.StatusAccepted {
		t.Fatal(a.raw)
	}
	if rest := s.rest(); !slices.Equal(rest, []string{"3 order.cancel_requested", "4 order.cancelled", "end terminal"}) {
		t.Errorf("%v", rest)
	}
}

// Clients that vanish leave nothing behind.
func TestStreamsWhoseClientsAreGone(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	open := func() (n float64) {
		families, err := g.components.tel.Registry.Gather()
		must(t, err)
		for _, f := range families {
			if f.GetName() == "ordergate_streams" {
				n = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return n
	}
	streams := make([]*opened, 100)
	for i := range streams {
		streams[i] = g.open(g.url, id, "")
		streams[i].next()
	}
	if n := open(); n != 100 {
		t.Errorf("%v streams are open", n)
	}
	for _, s := range streams {
		s.leave()
	}
	until(t, "all streams are closed", func() bool { return open() == 0 })
}
