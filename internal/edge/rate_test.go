package edge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/faults"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// limits is a server whose keys have the limits of a map, as a database would.
type limits struct {
	*Server

	now    time.Time
	limit  map[string]rate.Limit // by the id that stands in the key's text
	scopes []string
	slow   time.Duration // that the look-up of a key takes
	ends   *time.Time    // when keys expire; nil: never
	read   int           // how often the clock was read
	at     time.Time     // the present instant for the last handler
}

func newLimits(t *testing.T) *limits {
	t.Helper()
	l := &limits{now: time.Unix(1e9, 0), limit: map[string]rate.Limit{"100": {Requests: 100, Window: time.Second}, "2": {Requests: 2, Window: time.Minute}, "none": {}}, scopes: []string{"s"}}
	hashes := map[string]string{}
	for id := range l.limit {
		hash := sha256.Sum256([]byte("og_test_a_key_with_the_limit_" + id))
		hashes[string(hash[:])] = id
	}
	l.Server = newServer(Config{
		Signer: token.NewSigner([]byte("k")), Timeline: func() uint32 { return 1 }, Log: zap.NewNop(), Strict: true, Faults: true,
		Tracer: noop.NewTracerProvider().Tracer(""), Registry: prometheus.NewRegistry(), Origins: []string{"*"},
		Auth: NewAuthenticator(func(_ context.Context, hash []byte) (*Key, error) {
			l.now = l.now.Add(l.slow)
			id, ok := hashes[string(hash)]
			if !ok {
				return nil, nil
			}
			return &Key{ID: id, Owner: order.Owner{Account: 1, Mode: "test"}, Scopes: l.scopes, Limit: l.limit[id], ExpiresAt: l.ends}, nil
		}, nil, 8, nil, nil, func() time.Time { return l.now }, nil),
		Now: func() time.Time { l.read++; return l.now },
	})
	keyed := func(o *operation) { o.Scopes = []string{"s"} }
	stream := func(_ context.Context, r *request) (response, error) {
		r.add("Content-Type", "text/event-stream")
		return response{status: 200, stream: &stream{news: query.News{Final: true}, leave: func() {}}}, nil
	}
	l.register([]*operation{
		op("getThing", "GET", "/thing", func(_ context.Context, r *request) (response, error) {
			l.at = r.now
			if r.ifNoneMatch == "lost" {
				return response{}, apierr.E(errcode.ORD001)
			}
			return r.notModified(response{status: 200, contentType: "application/json", etag: `"1"`, body: "{}"}), nil
		}, keyed,
			answers([]int{200, 304}, errcode.ORD001, errcode.RATE001, errcode.AUTH002, errcode.AUTH003, errcode.AUTH005, errcode.REQ003, errcode.REQ007)),
		op("getStream", "GET", "/stream", stream, keyed, streaming, answers([]int{200}, errcode.RATE001)),
		op("getPublic", "GET", "/public", finished(200), answers([]int{200}, errcode.REQ003)),
	})
	return l
}

// ServeHTTP gives streams a connection.
func (l *limits) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.Server.ServeHTTP(hijackable{w.(*httptest.ResponseRecorder)}, r)
}

// get asks as the key with a limit, and waits until its stream has ended.
func (l *limits) get(id, path string, headers ...string) *httptest.ResponseRecorder {
	defer l.following.Wait()
	return call(l, http.MethodGet, path, "", append([]string{"Authorization", "Bearer og_test_a_key_with_the_limit_" + id}, headers...)...)
}

// TestEveryAnswerOfAKeyTellsOfItsLimit: answers of all kinds have the headers; those of keys without a limit and of public operations have none.
func TestEveryAnswerOfAKeyTellsOfItsLimit(t *testing.T) {
	l := newLimits(t)
	const policy = `"default";q=100;w=1`
	for i, c := range []struct {
		path    string
		status  int
		headers []string
	}{
		{"/thing", 200, nil},
		{"/thing", 304, []string{"If-None-Match", `"1"`}},
		{"/thing", 404, []string{"If-None-Match", "lost"}},
		{"/thing?unknown=1", 400, nil},
		{"/thing", 406, []string{"Accept", "image/png"}},
		{"/stream", 200, nil},
	} {
		w := l.get("100", c.path, c.headers...)
		h := w.Header()
		if want := fmt.Sprintf(`"default";r=%d;t=1`, 99-i); w.Code != c.status || h.Get("RateLimit-Policy") != policy || h.Get("RateLimit") != want || h.Get("Retry-After") != "" {
			t.Errorf("%s: %d %v, want %s", c.path, w.Code, h, want)
		}
		for _, w := range []*httptest.ResponseRecorder{l.get("none", c.path, c.headers...), l.get("100", "/public"), l.get("unknown", "/thing"), l.get("100", "/nowhere")} {
			if h := w.Header(); h.Get("RateLimit-Policy")+h.Get("RateLimit") != "" {
				t.Errorf("%s: %d %v", c.path, w.Code, h)
			}
		}
	}
	if w := l.get("100", "/thing", "Origin", "https://shop.example"); !strings.Contains(w.Header().Get("Access-Control-Expose-Headers"), ", RateLimit, RateLimit-Policy, ") {
		t.Errorf("a page cannot read them: %v", w.Header())
	}
}

// TestOverTheLimit: RATE_001 comes after the key and its scopes, before all other checks, with the seconds to wait. Refused requests cost nothing.
func TestOverTheLimit(t *testing.T) {
	l := newLimits(t)
	for range 2 {
		if w := l.get("2", "/thing"); w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
	}
	for range 3 {
		w := l.get("2", "/thing?unknown=1", "Accept", "image/png")
		h := w.Header()
		if codeOf(w) != "429 RATE_001" || h.Get("Retry-After") != "30" || h.Get("RateLimit") != `"default";r=0;t=60` || h.Get("RateLimit-Policy") != `"default";q=2;w=60` {
			t.Errorf("%s %v", codeOf(w), h)
		}
	}
	l.now = l.now.Add(29*time.Second + 100*time.Millisecond)
	if w := l.get("2", "/stream"); codeOf(w) != "429 RATE_001" || w.Header().Get("Retry-After") != "1" { // never 0, and the bucket outlives the look-up of the key
		t.Errorf("%s %v", codeOf(w), w.Header())
	}
	if w := l.get("100", "/thing"); w.Code != 200 {
		t.Errorf("another key: %d", w.Code)
	}
	l.now = l.now.Add(time.Second)
	if w := l.get("2", "/stream"); w.Code != 200 || w.Header().Get("RateLimit") != `"default";r=0;t=60` {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	l.scopes = nil
	l.now = l.now.Add(keyFresh)
	if w := l.get("2", "/thing"); codeOf(w) != "403 AUTH_005" || w.Header().Get("RateLimit") == "" {
		t.Errorf("without the scope: %s %v", codeOf(w), w.Header())
	}
	if w := l.get("none", "/public", faults.Header, string(faults.Rate)); w.Code != 200 {
		t.Errorf("a public operation has no limit: %s", codeOf(w))
	}
}

// TestALookUpOfAKeyTakesTime: what is asked after it is asked at the instant of its end: whether the key has expired, how much of its limit is back, how
// old what a cache has is. A key that is cached costs no further reading of the clock.
func TestALookUpOfAKeyTakesTime(t *testing.T) {
	l := newLimits(t)
	l.slow = 2 * time.Second
	for range 3 {
		l.read = 0
		if w := l.get("100", "/thing"); w.Code != 200 || !l.at.Equal(l.now) {
			t.Errorf("%s; the present instant is %v behind", codeOf(w), l.now.Sub(l.at))
		}
	}
	if l.read != 2 {
		t.Errorf("the clock is read %d times", l.read)
	}
	for range 2 {
		l.get("2", "/thing")
	}
	l.slow, l.now = 30*time.Second, l.now.Add(keyFresh)
	if w := l.get("2", "/thing"); w.Code != 200 { // a token is back
		t.Errorf("%s %v", codeOf(w), w.Header())
	}
	l.slow, l.now, l.ends = time.Second, l.now.Add(keyFresh), new(l.now.Add(keyFresh+time.Second))
	if w := l.get("none", "/thing"); codeOf(w) != "401 AUTH_003" {
		t.Errorf("it expired meanwhile: %s", codeOf(w))
	}
}

// TestAChangedLimitIsFollowed once the key is looked up again.
func TestAChangedLimitIsFollowed(t *testing.T) {
	l := newLimits(t)
	for range 3 {
		l.get("2", "/thing")
	}
	l.limit["2"] = rate.Limit{Requests: 100, Window: time.Second}
	if w := l.get("2", "/thing"); w.Code != 429 {
		t.Fatal(w.Code)
	}
	l.now = l.now.Add(keyFresh)
	if w := l.get("2", "/thing"); w.Code != 200 || w.Header().Get("RateLimit") != `"default";r=99;t=1` {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	l.limit["2"], l.now = rate.Limit{}, l.now.Add(keyFresh)
	if w := l.get("2", "/thing"); w.Code != 200 || w.Header().Get("RateLimit") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestALimitThatCountsAsUsedUp: the failure on purpose has the headers of the key's limit, or of one that stands in for it.
func TestALimitThatCountsAsUsedUp(t *testing.T) {
	l := newLimits(t)
	for id, policy := range map[string]string{"100": `"default";q=100;w=1`, "2": `"default";q=2;w=60`, "none": `"default";q=1;w=1`} {
		w := l.get(id, "/thing", faults.Header, string(faults.Rate))
		h := w.Header()
		if codeOf(w) != "429 RATE_001" || h.Get("RateLimit-Policy") != policy || h.Get("Retry-After") == "" || h.Get("RateLimit")[:14] != `"default";r=0;` {
			t.Errorf("%s: %s %v", id, codeOf(w), h)
		}
		if w = l.get(id, "/thing"); w.Code != 200 {
			t.Errorf("%s: the next is %s", id, codeOf(w))
		}
	}
}
