package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/internal/signature"
	"github.com/ordergate/ordergate/internal/verify"
	"github.com/ordergate/ordergate/order"
)

// withCallbacks starts a gateway whose simulator calls it back. hanging counts the authorizations that the simulator has not answered.
func withCallbacks(t *testing.T, faults psp.Faults) (g *gateway, hanging *atomic.Int32) {
	t.Helper()
	hanging = &atomic.Int32{}
	var target atomic.Pointer[url.URL]
	relay := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target.Load()) }})
	t.Cleanup(relay.Close)
	g = startGateway(t, func(c *Config, _ *pgtest.DB) {
		simulator, err := psp.New(psp.Config{
			Dir: t.TempDir(), CallbackURL: relay.URL + "/v1/provider-callbacks/psp", CallbackSecret: c.ProviderSecret, Faults: faults, Log: zap.NewNop(),
		})
		must(t, err)
		handler := simulator.Handler()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "-authorize") {
				hanging.Add(1)
				defer hanging.Add(-1)
			}
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(func() {
			server.CloseClientConnections()
			server.Close()
			_ = simulator.Close()
		})
		c.PSPURL = server.URL
	})
	address, err := url.Parse(g.url)
	must(t, err)
	target.Store(address)
	g.psp.URL = g.cfg.PSPURL // whose ledger counts
	return g, hanging
}

// TestACallbackMakesAPaymentDefinite: the provider charges and never answers. Its callback has it asked again while the first request still
// hangs.
func TestACallbackMakesAPaymentDefinite(t *testing.T) {
	t.Parallel()
	g, hanging := withCallbacks(t, psp.Faults{})
	g.stock("A", 10)
	a := g.do("POST", "/v1/orders", draft("A", 1, "pm_timeout_charged"), "Prefer", "wait=10")
	if a.status != http.StatusCreated || a.body.Status != "confirmed" {
		t.Fatal(a.raw)
	}
	if n := hanging.Load(); n != 1 {
		t.Errorf("%d requests hang: it was the retry that confirmed the order", n)
	}
	g.consistent()
}

// TestCallbacksInAnyOrder: doubled, late and out of order they change nothing, and all are looked at.
func TestCallbacksInAnyOrder(t *testing.T) {
	t.Parallel()
	g, _ := withCallbacks(t, psp.Faults{CallbackDouble: 1, CallbackDelay: time.Second})
	g.stock("A", 100)
	for _, token := range []string{"pm_ok", "pm_declined", "pm_flaky", "pm_duplicate"} {
		a := g.do("POST", "/v1/orders", draft("A", 1, token), "Prefer", "wait=10")
		if token != "pm_declined" {
			g.do("POST", "/v1/orders/"+a.body.ID+"/cancel", "", "Prefer", "wait=10")
		}
	}
	until(t, "all outcomes are told", func() bool { return g.count("provider_callbacks WHERE NOT parked") == len(g.ledger()) })
	until(t, "all callbacks are looked at", func() bool { return g.count("provider_callbacks WHERE next_at IS NOT NULL") == 0 })
	g.consistent()
	for _, e := range g.ledger() {
		if strings.Contains(e.Key, "-sweep-") {
			t.Errorf("%s was swept", e.Key)
		}
	}
}

// callBack posts a callback with a signature of the secret.
func (g *gateway) callBack(secret, provider, event, payment string) answer {
	g.t.Helper()
	body := fmt.Sprintf(`{"id":%q,"type":"operation.settled","operation":{"key":"%s-authorize","kind":"authorize","payment":%q,"status":"succeeded"},"more":[1]}`, event, payment, payment)
	return g.do("POST", "/v1/provider-callbacks/"+provider, body, signature.Header, signature.Sign(secret, time.Now(), []byte(body)), "Authorization", "")
}

// TestOnlyTheProviderCallsBack: what is not signed is not stored. An event is stored once, as it was sent, and one about an unknown payment
// is parked.
func TestOnlyTheProviderCallsBack(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 1)
	a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10")
	payment := g.ledger()[0].Payment
	g.do("POST", "/v1/orders/"+a.body.ID+"/cancel", "", "Prefer", "wait=10")
	for range 3 {
		if a := g.callBack(fmt.Sprintf("%064d", 9), "psp", "evt_forged", payment); a.status != http.StatusUnauthorized || a.body.Code != "AUTH_007" {
			t.Errorf("forged: %d %s", a.status, a.raw)
		}
		if a := g.callBack(g.cfg.ProviderSecret, "other", "evt_other", payment); a.status != http.StatusNotFound || a.body.Code != "REQ_005" {
			t.Errorf("of another provider: %d %s", a.status, a.raw)
		}
		for event, payment := range map[string]string{"evt_late": payment, "evt_unknown": "pay_of_somebody"} {
			if a := g.callBack(g.cfg.ProviderSecret, "psp", event, payment); a.status != http.StatusNoContent || a.raw != "" {
				t.Errorf("%s: %d %s", event, a.status, a.raw)
			}
		}
	}
	var stored, parked, body string
	must(t, g.db.Pool.QueryRow(t.Context(), `SELECT string_agg(event_id, ' ' ORDER BY event_id), string_agg(event_id, ' ') FILTER (WHERE parked), min(body) FILTER (WHERE NOT parked)
		FROM provider_callbacks`).Scan(&stored, &parked, &body))
	if stored != "evt_late evt_unknown" || parked != "evt_unknown" || !strings.HasSuffix(body, `"more":[1]}`) {
		t.Errorf("stored %s, parked %s, body %s", stored, parked, body)
	}
	g.cfg.ProviderSecret = ""
	g.url = g.serve(g.assemble())
	if a := g.callBack(fmt.Sprintf("%064d", 8), "psp", "evt_1", payment); a.body.Code != "AUTH_007" {
		t.Errorf("without a secret: %d %s", a.status, a.raw)
	}
	if _, err := g.db.Pool.Exec(t.Context(), "UPDATE provider_callbacks SET received_at = now() - interval '31 days' WHERE parked"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.components.maintain(t.Context()); err != nil || g.count("provider_callbacks") != 1 {
		t.Errorf("%d are left of old ones: %v", g.count("provider_callbacks"), err)
	}
}

// TestVerifyAgreesWithTheSweep: an orphan is a violation until a worker has swept it, and none afterwards.
func TestVerifyAgreesWithTheSweep(t *testing.T) {
	t.Parallel()
	g, _ := withCallbacks(t, psp.Faults{CallbackLost: 1})
	g.stock("A", 5)
	if a := g.do("POST", "/v1/orders", draft("A", 1, "pm_declined"), "Prefer", "wait=10"); a.body.Status != "rejected" {
		t.Fatal(a.raw)
	}
	declined := g.ledger()[0].Payment
	until(t, "the first sweep is over", func() bool { return g.count("ledger_sweeps WHERE next_at > now() + interval '31 seconds'") == 1 })
	g.stopWork()
	unknown := order.NewIDs(SecretFor(g.cfg.Secret, "ids")).Mint(time.Now(), 1).Format(order.PrefixPayment)
	for payment, kinds := range map[string][]string{unknown: {"authorize", "capture"}, declined: {"authorize"}} {
		for _, kind := range kinds {
			token := ""
			if kind == "authorize" {
				token = `,"method_token":"pm_ok"`
			}
			put(t, g, payment+"-again-"+kind, fmt.Sprintf(`{"kind":%q,"payment":%q,"amount":{"amount":1000,"currency":"EUR"}%s}`, kind, payment, token))
		}
	}
	if found := g.verify(verify.Config{OutboxLimit: time.Millisecond}); len(found) != 3 {
		t.Errorf("before the sweep: %v", found)
	}
	if _, err := g.db.Pool.Exec(t.Context(), "UPDATE ledger_sweeps SET next_at = now()"); err != nil {
		t.Fatal(err)
	}
	g.stopWork = g.background(g.assemble().Work)
	until(t, "all is swept", func() bool { return g.count("ledger_sweeps WHERE position >= 4") == 1 })
	if found := g.verify(verify.Config{OutboxLimit: time.Millisecond}); len(found) > 0 {
		t.Errorf("after the sweep: %v", found)
	}
	payment := g.sweptByMistake()
	if found := g.verify(verify.Config{OutboxLimit: time.Millisecond}); len(found) == 0 || !strings.Contains(strings.Join(found, " "), payment+"-sweep-refund-1000") {
		t.Errorf("a sweep of a payment that is wanted: %v", found)
	}
	g.broken = true
}

// sweptByMistake has the money of a confirmed order swept.
func (g *gateway) sweptByMistake() (payment string) {
	g.t.Helper()
	if a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10"); a.body.Status != "confirmed" {
		g.t.Fatal(a.raw)
	}
	all := g.ledger()
	payment = all[len(all)-1].Payment
	put(g.t, g, payment+"-sweep-refund-1000", fmt.Sprintf(`{"kind":"refund","payment":%q,"amount":{"amount":1000,"currency":"EUR"}}`, payment))
	return payment
}
