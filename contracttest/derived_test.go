package contracttest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ordergate/ordergate/internal/faults"
)

func messages(s *suite) string {
	var all strings.Builder
	for _, f := range s.findings {
		fmt.Fprintln(&all, f.Pointer, f.Message)
	}
	return all.String()
}

func TestAScopeThatIsNotCheckedIsFound(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"every key is served":    {`{"id":"ord_1"}`, 200, "is never AUTH_005"},
		"another scope is named": {`{"status":403,"code":"AUTH_005","required_scopes":["orders:write"]}`, 403, "/body/required_scopes are [orders:write] and not those of the contract, [orders:read]"},
		"the scope is named":     {`{"status":403,"code":"AUTH_005","required_scopes":["orders:read"]}`, 403, ""},
	} {
		s := addressed(t, Options{NarrowKeys: []string{"og_test_a", "og_test_b"}, Only: []string{"listOrders"}}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			fmt.Fprint(w, tt.body)
		})
		s.otherKeys(t.Context())
		if got := messages(s); tt.want == "" && (strings.Contains(got, "AUTH_005: no key") || strings.Contains(got, "required_scopes")) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestACodeThatNoFaultLeadsToIsFound(t *testing.T) {
	t.Parallel()
	const want = "/body/code is not SYS_002, which the operation lists, under X-Ordergate-Fault: primary-away"
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		found  bool
	}{
		"the fault changes nothing": {refusing(404, "ORD_001", ""), true},
		"the fault is unknown there": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"status":400,"code":"REQ_003","errors":[{"pointer":"/header/X-Ordergate-Fault","rule":"enum"}]}`)
		}, false},
	} {
		s := addressed(t, Options{Only: []string{"listOrders"}}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(faults.Header) == "panic" {
				refusing(500, "SYS_001", "")(w, r)
				return
			}
			tt.answer(w, r)
		})
		s.goods = &goods{}
		s.goods.main.Sku = "x"
		s.faulty(t.Context())
		if got := messages(s); strings.Contains(got, want) != tt.found {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAListHasNoMoreThanItShould(t *testing.T) {
	t.Parallel()
	s := addressed(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data":[{"id":"a"},{"id":"b"}],"next_cursor":null}`)
	})
	s.walk(t.Context(), "listOrders", "", values("limit", "2"), []string{"a"})
	if got := messages(s); !strings.Contains(got, "page by page it is [a b] and not [a]") {
		t.Error(got)
	}
	s.findings, s.kinds = nil, map[string]int{}
	s.walkInto(t.Context(), "listOrders", values("limit", "2"), []string{"a"})
	if got := messages(s); strings.Contains(got, "page by page") {
		t.Error(got)
	}
}

// TestAnOrderThatAwaitsItsPayment is looked at as it is. One whose authorization is being voided or captured is not: its payment is ahead of it.
func TestAnOrderThatAwaitsItsPayment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status, paymentStatus, payment string
		want                           bool
	}{
		{"reserved", "none", "", true},
		{"reserved", "failed", "failed", true},
		{"reserved", "failed", "pending", false},
		{"reserved", "authorized", "authorized", false},
		{"reserved", "authorized", "voided", false},
		{"confirmed", "paid", "captured", false},
	} {
		var payments []object
		if tt.payment != "" {
			payments = []object{{"status": tt.payment}}
		}
		if got := awaitsPayment(object{"status": tt.status, "payment_status": tt.paymentStatus}, payments); got != tt.want {
			t.Errorf("%v: %t", tt, got)
		}
	}
}

func TestACurlNamesItsKey(t *testing.T) {
	t.Parallel()
	s := &suite{Options: Options{Key: "og_test_k", NarrowKeys: []string{"og_test_n", "og_test_m"}, ExpiredKey: "og_test_e", RevokedKey: "og_test_r"}}
	for key, want := range map[string]string{
		"og_test_k": "KEY", "og_test_n": "NARROW_KEY", "og_test_m": "NARROW_KEY2", "og_test_e": "EXPIRED_KEY", "og_test_r": "REVOKED_KEY",
	} {
		if got := s.keyName(key); got != want {
			t.Errorf("%s is $%s, want $%s", key, got, want)
		}
	}
}

func TestAPartThatCannotLookDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"another answer": refusing(500, "SYS_001", ""),
		"a connection that is cut": func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		},
	} {
		if err := addressed(t, Options{}, answer).bodiless(t.Context(), call{op: "listErrors"}); err == nil {
			t.Errorf("%s: no obstacle was told", name)
		}
	}
	s := addressed(t, Options{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	if err := s.bodiless(t.Context(), call{op: "listErrors"}); err != nil || len(s.findings) > 0 {
		t.Error(err, s.findings)
	}
}
