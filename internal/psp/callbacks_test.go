package psp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"

	contract "github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/internal/signature"
)

const callbackSecret = "the secret of the tests"

// sent is a callback as its receiver saw it.
type sent struct {
	at        time.Time
	signature string
	body      []byte
}

func (s sent) event(t *testing.T) (e contract.Callback) {
	t.Helper()
	if err := json.Unmarshal(s.body, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// conforms fails the test if a callback is not what openapi/psp.yaml says, or its signature is wrong.
func (s sent) conforms(t *testing.T) {
	t.Helper()
	if err := signature.Verify(callbackSecret, s.signature, s.body, s.at, time.Minute); err != nil {
		t.Errorf("%s: %v", s.signature, err)
	}
	compiling.Lock()
	defer compiling.Unlock()
	c, err := compiler()
	if err != nil {
		t.Fatal(err)
	}
	const hook = "psp.yaml#/webhooks/operation.settled/post/"
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.body))
	if err != nil {
		t.Fatal(err)
	}
	for where, value := range map[string]any{"requestBody/content/application~1json/schema": body, "parameters/0/schema": s.signature} {
		schema, err := c.Compile(hook + where)
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s: %v", s.body, err)
		}
	}
}

// receive returns a receiver of callbacks that takes all of them.
func receive(t *testing.T) (url string, received chan sent) {
	t.Helper()
	received = make(chan sent, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %v", r.Method, r.Header, err)
		}
		received <- sent{time.Now(), r.Header.Get("Provider-Signature"), body}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}

// TestEveryOutcomeIsSentOnce: each definite outcome, and nothing else, causes one callback with what GET says, once it is in the file.
func TestEveryOutcomeIsSentOnce(t *testing.T) {
	t.Parallel()
	url, received := receive(t)
	dir := t.TempDir()
	p := start(t, Config{Dir: dir, CallbackURL: url, CallbackSecret: callbackSecret})
	for _, c := range []struct{ key, want string }{
		{"succeeded", "succeeded"}, {"declined", "declined"}, {"refused", "declined"}, {"cancelled", "cancelled"},
	} {
		for range 2 {
			switch c.key {
			case "succeeded":
				p.outcome(c.key, authorize("pay", "pm_ok"))
			case "declined":
				p.outcome(c.key, authorize("pay2", "pm_declined"))
			case "refused":
				p.outcome(c.key, request(contract.KindCapture, "pay3", 1, ""))
			case "cancelled":
				p.cancel(c.key)
			}
			p.outcome("nothing definite", authorize("pay4", "pm_error"))
			p.get(c.key)
		}
		got := <-received
		got.conforms(t)
		e := got.event(t)
		equal(t, "key", e.Operation.Key, c.key)
		equal(t, "status", string(e.Operation.Status), c.want)
		operation, err := json.Marshal(e.Operation)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "operation", string(operation), strings.TrimSpace(string(p.get(c.key).Body)))
		equal(t, "length of the id", len(e.ID), len("evt_")+32)
		lines, err := os.ReadFile(filepath.Join(dir, "psp.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(lines, []byte(`"key":"`+c.key+`"`)) {
			t.Errorf("%s was sent before it was in the file", c.key)
		}
	}
	if len(received) > 0 {
		t.Errorf("sent once more: %s", (<-received).body)
	}
}

// TestNothingIsSentThatIsNotWritten: an outcome that could not be made durable has no callback.
func TestNothingIsSentThatIsNotWritten(t *testing.T) {
	t.Parallel()
	url, received := receive(t)
	p := start(t, Config{Dir: t.TempDir(), CallbackURL: url, CallbackSecret: callbackSecret})
	if err := p.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "PUT", p.outcome("k", authorize("pay", "pm_ok")), "500 internal")
	equal(t, "callbacks that wait", p.callbacks.waiting(), 0)
	equal(t, "callbacks", len(received), 0)
}

// TestANewProcessSendsNothingOld: outcomes that the file has are not sent again, and a new outcome's id is none of an earlier ledger.
func TestANewProcessSendsNothingOld(t *testing.T) {
	t.Parallel()
	url, received := receive(t)
	dir := t.TempDir()
	cfg := Config{Dir: dir, CallbackURL: url, CallbackSecret: callbackSecret}
	ids := map[string]bool{}
	for i, key := range []string{"first", "second", "third"} {
		if key == "third" { // a ledger that is begun anew
			if err := os.Remove(filepath.Join(dir, "psp.jsonl")); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(key, func(t *testing.T) {
			p := start(t, cfg)
			p.outcome(key, authorize(key, "pm_ok"))
			e := (<-received).event(t)
			equal(t, "key", e.Operation.Key, key)
			ids[e.ID] = true
			equal(t, "ids", len(ids), i+1)
		})
	}
}

func TestCallbacksNeedASecret(t *testing.T) {
	if s, err := New(Config{Dir: t.TempDir(), CallbackURL: "http://127.0.0.1:1", Log: zap.NewNop()}); err == nil {
		t.Error("callbacks without a secret", s.Close())
	}
}

// transport is a receiver without a network, so that time may be synctest's.
type transport struct {
	answer func(*http.Request, int) (*http.Response, error) // to the nth try, from 1

	mu   sync.Mutex
	sent []sent
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	tr.mu.Lock()
	tr.sent = append(tr.sent, sent{time.Now(), r.Header.Get("Provider-Signature"), body})
	n := len(tr.sent)
	tr.mu.Unlock()
	return tr.answer(r, n)
}

func status(code int) (*http.Response, error) {
	return &http.Response{StatusCode: code, Header: http.Header{"Location": {"http://elsewhere.example"}}, Body: io.NopCloser(strings.NewReader("x"))}, nil
}

func taken(*http.Request, int) (*http.Response, error) { return status(http.StatusNoContent) }

// settle runs callbacks for the outcomes of n keys until time has passed, and returns what was sent.
func settle(t *testing.T, cfg Config, tr *transport, n int, passes time.Duration) []sent {
	t.Helper()
	cfg.CallbackURL, cfg.CallbackSecret, cfg.Log = "http://gateway.example", callbackSecret, zap.NewNop()
	c := newCallbacks(cfg, tr)
	ctx, end := context.WithCancel(t.Context())
	go c.run(ctx)
	for i := range n {
		c.add(outcomeOf(i))
	}
	<-time.After(passes)
	end()
	<-c.ended
	return tr.sent
}

func (c *callbacks) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

func outcomeOf(i int) *record {
	return &record{Sequence: int64(i), Operation: contract.Operation{Key: fmt.Sprint("k", i), Status: contract.StatusCancelled}}
}

// TestRepetitions: what is not taken by 204 is sent again, the same bytes under a new signature, five times in about a minute.
func TestRepetitions(t *testing.T) {
	seconds := func(all []sent) (s []float64) {
		for _, x := range all {
			s = append(s, x.at.Sub(all[0].at).Seconds())
		}
		return s
	}
	for name, c := range map[string]struct {
		answer func(*http.Request, int) (*http.Response, error)
		want   []float64 // seconds after the first try
	}{
		"204":                 {taken, []float64{0}},
		"404":                 {func(*http.Request, int) (*http.Response, error) { return status(404) }, []float64{0, 1, 5, 20, 60}},
		"200 is not 204":      {func(*http.Request, int) (*http.Response, error) { return status(200) }, []float64{0, 1, 5, 20, 60}},
		"a redirect":          {func(*http.Request, int) (*http.Response, error) { return status(307) }, []float64{0, 1, 5, 20, 60}},
		"a broken connection": {func(*http.Request, int) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, []float64{0, 1, 5, 20, 60}},
		"silence": {func(r *http.Request, _ int) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, []float64{0, 6, 15, 35, 80}},
		"503, then 204": {func(_ *http.Request, n int) (*http.Response, error) {
			if n < 3 {
				return status(503)
			}
			return status(204)
		}, []float64{0, 1, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := settle(t, Config{}, &transport{answer: c.answer}, 1, 24*time.Hour)
				if got := seconds(all); !slices.Equal(got, c.want) {
					t.Fatalf("sent after %v, want %v", got, c.want)
				}
				for _, s := range all {
					s.conforms(t)
					if !bytes.Equal(s.body, all[0].body) {
						t.Errorf("%s, then %s", all[0].body, s.body)
					}
				}
				if len(all) > 1 && all[1].signature == all[0].signature {
					t.Error("a repetition has the signature of the first try")
				}
			})
		})
	}
}

// TestARepetitionDelaysNoOther: a callback that waits for its next try lets others pass.
func TestARepetitionDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{answer: func(r *http.Request, n int) (*http.Response, error) {
			if n == 1 {
				return status(500)
			}
			return status(204)
		}}
		all := settle(t, Config{}, tr, 50, time.Minute)
		for i, s := range all[:50] {
			if s.at.Sub(all[0].at) != 0 {
				t.Errorf("callback %d was sent after %v", i, s.at.Sub(all[0].at))
			}
		}
		equal(t, "sent", len(all), 51)
	})
}

// TestCallbacksAreBounded: a receiver that hangs has at most so many requests, and at most so many callbacks wait for it.
func TestCallbacksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most := 0, 0
		tr := &transport{answer: func(r *http.Request, _ int) (*http.Response, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-r.Context().Done()
			mu.Lock()
			running--
			mu.Unlock()
			return nil, r.Context().Err()
		}}
		c := newCallbacks(Config{CallbackURL: "http://gateway.example", CallbackSecret: callbackSecret, Log: zap.NewNop()}, tr)
		ctx, end := context.WithCancel(t.Context())
		go c.run(ctx)
		for i := range maxPending + 1000 {
			c.add(outcomeOf(i))
		}
		equal(t, "waiting", c.waiting(), maxPending)
		<-time.After(time.Minute)
		mu.Lock()
		equal(t, "tries at a time", most, senders)
		mu.Unlock()
		if n := c.waiting(); n > maxPending {
			t.Error("repetitions are not bounded:", n)
		}
		begin := time.Now()
		end()
		<-c.ended
		equal(t, "time to the end", time.Since(begin), 0)
		mu.Lock()
		defer mu.Unlock()
		equal(t, "requests after it", running, 0)
	})
}

// TestCloseEndsCallbacks: Close cuts off a try, sends nothing more, and may be repeated.
func TestCloseEndsCallbacks(t *testing.T) {
	t.Parallel()
	begun, gone := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client leaves
		close(begun)
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(server.Close)
	p := start(t, Config{Dir: t.TempDir(), CallbackURL: server.URL, CallbackSecret: callbackSecret})
	equal(t, "PUT", p.outcome("k", authorize("pay", "pm_ok")), "succeeded") // it does not wait for the callback
	<-begun
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	<-gone
}

func TestFaultsOfCallbacks(t *testing.T) {
	const keys = 1000
	run := func(t *testing.T, f Faults) (all []sent, count map[string]int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			all, count = settle(t, Config{Faults: f}, &transport{answer: taken}, keys, time.Hour), map[string]int{}
			for _, s := range all {
				count[s.event(t).ID]++
			}
		})
		return all, count
	}
	t.Run("lost", func(t *testing.T) {
		all, count := run(t, Faults{CallbackLost: 0.2})
		if lost := keys - len(count); lost < 150 || lost > 250 || len(all) != len(count) {
			t.Errorf("%d of %d are lost, %d sent", lost, keys, len(all))
		}
	})
	t.Run("doubled", func(t *testing.T) {
		all, count := run(t, Faults{CallbackDouble: 0.2})
		if doubled := len(all) - keys; doubled < 150 || doubled > 250 || len(count) != keys {
			t.Errorf("%d of %d are doubled", doubled, len(count))
		}
	})
	t.Run("delayed, and so out of order", func(t *testing.T) {
		all, _ := run(t, Faults{CallbackDelay: 2 * time.Second})
		swapped, first, last := 0, all[0].at, all[keys-1].at
		for i := range all[1:] {
			if all[i].event(t).Operation.Key > all[i+1].event(t).Operation.Key {
				swapped++
			}
		}
		if d := last.Sub(first); swapped < keys/3 || d < time.Second || d > 2*time.Second || len(all) != keys {
			t.Errorf("%d of %d are before their predecessor, within %v", swapped, len(all), d)
		}
	})
	t.Run("the same again with the same seed", func(t *testing.T) {
		_, a := run(t, Faults{CallbackLost: 0.5, CallbackDouble: 0.5, Seed: 7})
		_, b := run(t, Faults{CallbackLost: 0.5, CallbackDouble: 0.5, Seed: 7})
		_, other := run(t, Faults{CallbackLost: 0.5, CallbackDouble: 0.5, Seed: 8})
		if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(other) {
			t.Error("seeds do not decide")
		}
	})
}
