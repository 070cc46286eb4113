// Package contracttest is a black-box suite: it asks an address everything that the contract promises and holds every answer
// against the contract. Anybody may run it against any address with nothing but an API key:
//
//	go test -tags contract ./contracttest -run TestContract -url=https://... -key=og_test_...
//
// or from a test of their own with Run. The account of the key needs an active product with a price and 20 pieces in stock. A run places
// about twenty orders of a few pieces, under a customer_ref that no other run has, ships one, pays and refunds one, cancels some of them and
// leaves them there: orders are history. It creates one product, which is never active and is left without pieces. Where the address has the
// coupons of the sample account, orders use them. Runs may be repeated and may overlap. The payment provider behind the address must know
// the tokens pm_ok and pm_declined, as the simulator does. It may know pm_timeout and pm_error: then a run takes as long as a payment may
// take, up to Options.Patience.
package contracttest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Options say what is tested against what.
type Options struct {
	BaseURL  string        // of the API, without a path of its own: https://api.example.com
	Key      string        // an API key with all scopes of the contract
	Contract []byte        // the bundled OpenAPI document, JSON; nil: the one that this package was built with
	HTTP     *http.Client  // nil: one that gives up on an answer after 30 s; redirects are never followed
	Patience time.Duration // how long the suite polls for what must happen; 0: 30 s

	ref string // of the run; empty: a new one
}

// Finding is one place where the address and the contract differ.
type Finding struct {
	Part      string // of the suite
	Operation string // the operationId; empty where the contract has no operation
	Request   string // method and address
	Status    int    // of the answer; 0: there was none
	Pointer   string // what is wrong: /status, /header/NAME, /body and a JSON pointer, /request, or empty for what several answers show
	Message   string
	TraceID   string // names the answer in the logs of the address
}

// String tells a finding in one line, without what it has not: one about several answers has no request, status or trace id.
func (f Finding) String() string {
	where, from := cmp.Or(f.Operation, "no operation"), ""
	if f.Request != "" {
		where += fmt.Sprintf(" %d %s", f.Status, cmp.Or(f.Pointer, "-"))
		from = "  [" + f.Request
		if f.TraceID != "" {
			from += ", trace id " + f.TraceID
		}
		from += "]"
	}
	return fmt.Sprintf("%s: %s: %s%s", f.Part, where, f.Message, from)
}

// Run tests the address against the contract that this package was built with; each finding is an error of t.
func Run(t *testing.T, baseURL, key string) {
	t.Helper()
	RunWith(t, Options{BaseURL: baseURL, Key: key})
}

// RunWith is Run with another contract or HTTP client.
func RunWith(t *testing.T, o Options) {
	t.Helper()
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if s.dead {
			return // it said why
		}
		t.Run(p.name, func(t *testing.T) {
			for _, f := range s.run(t.Context(), p) {
				t.Error(f)
			}
		})
	}
	t.Log(s.summary())
}

// part is a section of the suite. Each part finds or makes what it needs, so that it can run alone.
type part struct {
	name string
	run  func(*suite, context.Context)
}

// with runs a part with what find gives, if there is any: why there is none is a finding already.
func with[T any](find func(*suite, context.Context) (T, bool), run func(*suite, context.Context, T)) func(*suite, context.Context) {
	return func(s *suite, ctx context.Context) {
		if needed, ok := find(s, ctx); ok {
			run(s, ctx, needed)
		}
	}
}

var parts = []part{
	{"key", (*suite).key},
	{"document", (*suite).document},
	{"error registry", (*suite).errorRegistry},
	{"addresses", (*suite).addresses},
	{"admission", (*suite).admission},
	{"products", with((*suite).find, (*suite).products)},
	{"inventory", with((*suite).find, (*suite).inventory)},
	{"creating", with((*suite).own, (*suite).creating)},
	{"changing", with((*suite).own, (*suite).changing)},
	{"adjusting", with((*suite).own, (*suite).adjusting)},
	{"placing", with((*suite).ordered, (*suite).placing)},
	{"quoting", with((*suite).find, (*suite).quoting)},
	{"coupons", with((*suite).find, (*suite).coupons)},
	{"references", with((*suite).find, (*suite).references)},
	{"racing", with((*suite).find, (*suite).racing)},
	{"refused requests", with((*suite).find, (*suite).refusedRequests)},
	{"refused orders", with((*suite).find, (*suite).refusedOrders)},
	{"rejected orders", with((*suite).refusal, (*suite).rejectedOrders)},
	{"patching", with((*suite).find, (*suite).patching)},
	{"shipping", with((*suite).find, (*suite).shipping)},
	{"cancelling", with((*suite).find, (*suite).cancelling)},
	{"paying", with((*suite).find, (*suite).paying)},
	{"refunding", with((*suite).charged, (*suite).refunding)},
	{"reading", with((*suite).ordered, (*suite).reading)},
	{"listing", with((*suite).ordered, (*suite).listing)},
	{"events", with((*suite).ordered, (*suite).events)},
	{"stream", with((*suite).ordered, (*suite).stream)},
	{"then", with((*suite).ordered, (*suite).then)},
	{"saga", with((*suite).ordered, (*suite).saga)},
}
