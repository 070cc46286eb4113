// Package contracttest is a black-box suite: it asks an address everything that the contract promises and holds every answer
// against the contract and against what the address said before. Anybody may run it against any address with nothing but an API key:
//
//	ordergate contract --url https://... --key og_test_...
//
// or from a program with Check, or from a test with Run. The account of the key needs an active product with a price and 20 pieces in
// stock. A run places some forty orders of a few pieces, under customer_refs that no other run has, ships one, pays and refunds one, cancels
// some of them and leaves them there: orders are history. It creates a product, and the fuzzing up to five more; none is ever active, and all are left without pieces. Where the
// address has the coupons of the sample account, orders use them. Runs may be repeated and may overlap. The payment provider behind the
// address must know the tokens pm_ok and pm_declined, as the simulator does. It may know pm_slow, pm_timeout and pm_error: then a run takes
// as long as a payment may take, up to Options.Patience.
//
// A run is a list of parts (flows and derived in contracttest.go). A flow asks what clients ask, as placing.go and shipping.go do; a derived part is made of
// the contract, such as wrong bodies (derived.go), other keys (keys.go) and the fuzzing (fuzz.go). All ask by client.go. judge.go holds each answer
// against its schema (contract.go), the conventions (conventions.go, rules.go) and the answers before it: facts.go, which calls versions.go,
// lists.go, sums.go, clocks.go, echoes.go, steps.go, causes.go and headers.go. A difference is a finding (findings.go). report.go makes the report
// of them, with the matrix of what was proven (matrix.go). A lie of each kind is tested in prove_test.go and proxy_lies_test.go.
package contracttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options say what is tested against what.
type Options struct {
	BaseURL  string        // of the API, without a path of its own: https://api.example.com
	Key      string        // an API key with all scopes of the contract
	Contract []byte        // the bundled OpenAPI document, JSON; nil: the one that this package was built with
	HTTP     *http.Client  // nil: one that gives up on an answer after 30 s; redirects are never followed
	Patience time.Duration // how long the suite polls for what must happen; 0: 30 s

	// What some refusals need. Without them these refusals are not proven, which is no fault of the address.
	NarrowKeys     []string // keys that lack scopes: each operation is refused to one of them
	ExpiredKey     string
	RevokedKey     string
	ProviderSecret string // that signs the payment provider's callbacks

	// Origin is one that the address allows by CORS, such as https://shop.example; empty: some that an installation may allow are tried.
	Origin string

	// NoPages says that the address has the API alone, without the pages for people that the types of problems lead to.
	NoPages bool

	// Required names what the run must not go without: narrow-key, expired-key, revoked-key, provider-secret and origin, as the flags of
	// `ordergate contract` are called. One that does not work ends the run before anything is made, if a part needs it: it could not run. What is
	// not named here and does not work is skipped.
	Required []string

	Only     []string  // tags of the contract, names of parts or operationIds; empty: everything
	Requests int       // that the fuzzing sends; 0: none
	Seed     uint64    // of the fuzzing: the same one sends the same requests, but for ids; 0: a new one
	Progress io.Writer // gets a line a part while the run goes on; nil: nobody

	ref     string           // of the run; empty: a new one
	now     func() time.Time // nil: time.Now
	hurries bool             // polls without waiting: what is asked cannot change meanwhile
}

// Finding is one place where the address and the contract differ.
type Finding struct {
	Part      string `json:"part"`                // of the suite
	Operation string `json:"operation,omitempty"` // the operationId; empty where the contract has no operation
	Request   string `json:"request,omitempty"`   // method and address
	Status    int    `json:"status,omitempty"`    // of the answer; 0: there was none
	Pointer   string `json:"pointer,omitempty"`   // what is wrong: /status, /header/NAME, /body and a JSON pointer, /request, or empty for what several answers show
	Message   string `json:"message"`
	TraceID   string `json:"trace_id,omitempty"` // names the answer in the logs of the address
	Repeat    string `json:"repeat,omitempty"`   // a curl that sends the request again; $KEY, $NARROW_KEY and so on stand for the keys
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

// Validate tells why Check would refuse the options. It asks the address nothing.
func (o Options) Validate() error {
	_, err := newSuite(o)
	return err
}

// Check tests the address and reports what it found. It ends early when ctx does, with what it has found until then. An error says that
// nothing could be asked: the options are wrong. Report.Verdict tells whether the address passed. With Options.Requests 0 nothing is fuzzed, and what
// needs a key or secret that the options lack is not proven: Report.Matrix tells.
func Check(ctx context.Context, o Options) (*Report, error) {
	s, err := newSuite(o)
	if err != nil {
		return nil, err
	}
	for _, p := range s.parts {
		if s.dead || ctx.Err() != nil {
			break
		}
		s.run(ctx, p)
	}
	return s.report(ctx.Err() != nil), nil //nolint:nilerr // the report says that it was interrupted
}

// tests is what *testing.T has: the package needs no package testing, so that a program may import it.
type tests[T any] interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Fatal(args ...any)
	Log(args ...any)
	Skip(args ...any)
	Run(name string, test func(T)) bool
}

// Run tests the address against the contract that this package was built with; each finding is an error of t, a *testing.T. It fuzzes 500 requests. It
// knows no key but this one, so that refusals to narrow, expired and revoked keys are not proven: RunWith takes these. The orders of the run stay.
func Run[T tests[T]](t T, baseURL, key string) {
	t.Helper()
	RunWith(t, Options{BaseURL: baseURL, Key: key, Requests: 500})
}

// RunWith is Run with other options. It returns the report.
func RunWith[T tests[T]](t T, o Options) *Report {
	t.Helper()
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.parts {
		if s.dead {
			break // it said why
		}
		t.Run(p.name, func(t T) {
			result := s.run(t.Context(), p)
			for _, f := range s.findings[len(s.findings)-result.Findings:] {
				t.Error(f)
			}
			if result.Result == Skipped {
				t.Skip(result.Reason)
			}
		})
	}
	r := s.report(false)
	if r.Verdict == CouldNotRun {
		t.Error(r.Reason)
	}
	t.Log(r.String())
	return r
}

// part is a section of the suite. Each part finds or makes what it needs, so that it can run alone.
type part struct {
	name string
	tags string // of the contract, between blanks, or "*": it goes through the operations that were chosen
	run  func(*suite, context.Context)
}

// with runs a part with what find gives, if there is any: else find said why there is none.
func with[T any](find func(*suite, context.Context) (T, bool), run func(*suite, context.Context, T)) func(*suite, context.Context) {
	return func(s *suite, ctx context.Context) {
		if needed, ok := find(s, ctx); ok {
			run(s, ctx, needed)
		}
	}
}

// flows are the parts that tell a story, in their order. A recorded run has these.
var flows = []part{
	{"key", "", (*suite).key},
	{"document", "Contract", (*suite).document},
	{"error registry", "Contract", (*suite).errorRegistry},
	{"addresses", "", (*suite).addresses},
	{"admission", "*", (*suite).admission},
	{"products", "Products", with((*suite).find, (*suite).products)},
	{"inventory", "Inventory", with((*suite).find, (*suite).inventory)},
	{"creating", "Products", with((*suite).own, (*suite).creating)},
	{"changing", "Products", with((*suite).own, (*suite).changing)},
	{"adjusting", "Inventory", with((*suite).own, (*suite).adjusting)},
	{"placing", "Orders", with((*suite).ordered, (*suite).placing)},
	{"quoting", "Orders", with((*suite).find, (*suite).quoting)},
	{"coupons", "Orders", with((*suite).find, (*suite).coupons)},
	{"references", "Orders", with((*suite).find, (*suite).references)},
	{"racing", "Orders", with((*suite).find, (*suite).racing)},
	{"refused requests", "Orders", with((*suite).find, (*suite).refusedRequests)},
	{"refused orders", "Orders", with((*suite).find, (*suite).refusedOrders)},
	{"rejected orders", "Orders", with((*suite).refusal, (*suite).rejectedOrders)},
	{"patching", "Orders", with((*suite).find, (*suite).patching)},
	{"shipping", "Shipments", with((*suite).find, (*suite).shipping)},
	{"cancelling", "Orders", with((*suite).find, (*suite).cancelling)},
	{"paying", "Payments", with((*suite).find, (*suite).paying)},
	{"refunding", "Payments", with((*suite).charged, (*suite).refunding)},
	{"reading", "Orders", with((*suite).ordered, (*suite).reading)},
	{"listing", "Orders Payments", with((*suite).ordered, (*suite).listing)},
	{"events", "Orders", with((*suite).ordered, (*suite).events)},
	{"stream", "Orders", with((*suite).ordered, (*suite).stream)},
	{"then", "Orders", with((*suite).ordered, (*suite).then)},
	{"saga", "Orders", with((*suite).ordered, (*suite).saga)},
	{"relations", "Orders Payments Shipments", with((*suite).ordered, (*suite).relations)},
	{"heads", "*", with((*suite).ordered, (*suite).heads)},
}

// derived are the parts that the contract's schemas and lists make.
var derived = []part{
	{"wrong parameters", "*", (*suite).wrongParameters},
	{"wrong bodies", "*", (*suite).wrongBodies},
	{"bounds", "*", (*suite).bounds},
	{"links", "*", (*suite).links},
	{"other keys", "*", (*suite).otherKeys},
	{"callbacks", "Callbacks", (*suite).signedCallbacks},
	{"cors", "*", (*suite).cors},
	{"slow payments", "Orders Payments", with((*suite).find, (*suite).slowPayments)},
	{"faults", "*", (*suite).faulty},
	{"fuzzing", "*", (*suite).fuzz},
}

// selected are the parts that Options.Only names; all if it names none. The first ones are of every run: they find out whether there is
// anything to test.
func (s *suite) selected() []part {
	all := slices.Concat(flows, derived)
	if len(s.Only) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(p part) bool {
		tags := strings.Fields(strings.ToLower(p.tags))
		return p.name != "key" && !slices.ContainsFunc(s.Only, func(word string) bool {
			return word == partWord(p.name) || slices.Contains(tags, word) || p.tags == "*" && slices.Contains(s.among, word)
		})
	})
}

// partWord is how Options.Only names a part.
func partWord(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

// checkOnly makes the words of Options.Only comparable, and refuses one that names nothing.
func (s *suite) checkOnly() error {
	var tags []string
	ids := make([]string, 0, len(s.contract.operations))
	for id, op := range s.contract.operations {
		ids = append(ids, strings.ToLower(id))
		for _, tag := range op.at("tags").texts() {
			tags = append(tags, strings.ToLower(tag))
		}
	}
	all := slices.Concat(flows, derived)
	names := make([]string, 0, len(all))
	for _, p := range all {
		names = append(names, partWord(p.name))
	}
	slices.Sort(tags)
	s.Only = slices.Clone(s.Only)
	for i, word := range s.Only {
		word = partWord(strings.TrimSpace(word))
		if s.Only[i] = word; !slices.Contains(tags, word) && !slices.Contains(names, word) && !slices.Contains(ids, word) {
			return fmt.Errorf("nothing is called %q (entries have commas between them): there are the tags %s, the parts %s, and the operationIds of the contract",
				word, strings.Join(slices.Compact(tags), ", "), strings.Join(names, ", "))
		}
		if !slices.Contains(names, word) || slices.Contains(tags, word) {
			s.among = append(s.among, word)
		}
	}
	return nil
}

// chosen tells whether the parts that go through all operations take this one.
func (s *suite) chosen(op *operation) bool {
	return len(s.among) == 0 || slices.ContainsFunc(s.among, func(word string) bool {
		return word == strings.ToLower(op.id) || slices.ContainsFunc(op.at("tags").texts(), func(tag string) bool { return strings.ToLower(tag) == word })
	})
}

// operationIDs are those of the operations that were chosen, sorted.
func (s *suite) operationIDs() []string {
	return slices.DeleteFunc(sortedKeys(s.contract.operations), func(id string) bool { return !s.chosen(s.contract.operations[id]) })
}

var errInterrupted = errors.New("it was interrupted")

func newSeed(seed uint64) uint64 {
	for seed == 0 {
		seed = rand.Uint64N(1_000_000_000) //nolint:gosec // it is no secret
	}
	return seed
}
