package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
)

// money is what the provider's ledger has of the payments of an order: how many operations of a kind succeeded, and their sum.
type money struct {
	captures, refunds  int
	captured, refunded int64
}

// moneyOf reads the provider's ledger.
func (g *gateway) moneyOf(orderID string) (m money) {
	g.t.Helper()
	id, _ := order.Parse(order.PrefixOrder, orderID)
	rows, err := g.db.Pool.Query(g.t.Context(), "SELECT id FROM payments WHERE order_id = $1", uuid.UUID(id))
	if err != nil {
		g.t.Fatal(err)
	}
	defer rows.Close()
	var payments []string
	for rows.Next() {
		var payment uuid.UUID
		if err = rows.Scan(&payment); err != nil {
			g.t.Fatal(err)
		}
		payments = append(payments, order.ID(payment).Format(order.PrefixPayment))
	}
	for _, e := range g.ledger() {
		switch {
		case e.Status != "succeeded" || !slices.Contains(payments, e.Payment):
		case e.Kind == "capture":
			m.captures++
			m.captured += e.Amount.Amount
		case e.Kind == "refund":
			m.refunds++
			m.refunded += e.Amount.Amount
		}
	}
	return m
}

// ends waits until an order has a status and a payment status.
func (g *gateway) ends(orderID, status, payment string) {
	g.t.Helper()
	var a answer
	end := time.Now().Add(20 * time.Second)
	for a = g.do("GET", "/v1/orders/"+orderID, nil); a.body.Status != status || a.body.PaymentStatus != payment; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Errorf("not %s, %s: %s", status, payment, a.raw)
			return
		}
		a = g.do("GET", "/v1/orders/"+orderID, nil)
	}
}

// provider stands before the simulator. hold is asked before each PUT of an operation, with its key. It may wait; if it returns false the
// operation is refused: its key was cancelled.
func provider(t *testing.T, c *Config, hold func(key string) bool) {
	t.Helper()
	behind, err := url.Parse(c.PSPURL)
	if err != nil {
		t.Fatal(err)
	}
	simulator := c.PSPURL
	forward := httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if r.Method == http.MethodPut && !hold(key) {
			cancel, err := http.NewRequestWithContext(r.Context(), http.MethodDelete, simulator+r.URL.Path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := http.DefaultClient.Do(cancel)
			if err != nil {
				t.Error(err)
				return
			}
			if res.Body.Close(); res.StatusCode != http.StatusOK {
				t.Errorf("cancel %s: %s", key, res.Status)
			}
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { front.CloseClientConnections(); front.Close() })
	c.PSPURL = front.URL
}

// Whatever became of the first card, a second one pays the order, which is charged once.
func TestASecondCardPaysOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.PaymentTimeout = time.Second })
	g.stock("A", 10)
	var wg sync.WaitGroup
	for first, want := range map[string]string{"pm_declined": "PAY_007", "pm_timeout": "PAY_003", "pm_error": "PAY_006", "pm_never_heard_of": "PAY_007"} {
		wg.Go(func() {
			id := g.reserved("A")
			refused := g.do("POST", "/v1/orders/"+id+"/payments", map[string]string{"method_token": first}, "Prefer", "wait=10", "Idempotency-Key", "first-"+id)
			if refused.body.Code != want {
				t.Errorf("%s: %s", first, refused.raw)
			}
			if a := g.do("GET", "/v1/orders/"+id, nil, "X-Consistency-Token", refused.header.Get("X-Consistency-Token")); a.body.Status != "reserved" || a.body.PaymentStatus != "failed" {
				t.Errorf("after %s: %s", first, a.raw)
			}
			captured := g.pay(id, "pm_ok", http.StatusCreated)
			if a := g.do("GET", "/v1/orders/"+id, nil, "X-Consistency-Token", captured.header.Get("X-Consistency-Token")); a.body.Status != "confirmed" || a.body.PaymentStatus != "paid" {
				t.Errorf("after the second card: %s", a.raw)
			}
			if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000}) {
				t.Errorf("%s: the provider has %+v", first, m)
			}
			again := g.do("POST", "/v1/orders/"+id+"/payments", map[string]string{"method_token": first}, "Prefer", "wait=10", "Idempotency-Key", "first-"+id)
			if again.body.Code != want || again.header.Get("Preference-Applied") != "wait=10" || again.header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%s again: %v %s", first, again.header, again.raw)
			}
			if a := g.pay(id, "pm_ok", http.StatusConflict); a.body.Code != "PAY_002" {
				t.Errorf("a third card: %s", a.raw)
			}
		})
	}
	wg.Wait()
	if n := g.count("payment_calls WHERE method_token <> ''"); n != 0 {
		t.Errorf("%d method tokens are kept after their outcome", n)
	}
}

// The token of a payment that was waited for names no revision of the order: the command's is older than the outcome, and a cache that has
// it would serve the unpaid order.
func TestTheTokenOfAnOutcomeNamesNoOlderRevision(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	captured := g.pay(id, "pm_ok", http.StatusCreated)
	seen, ok := token.NewSigner(SecretFor(g.cfg.Secret, "tokens")).Parse(captured.header.Get("X-Consistency-Token"))
	if !ok || seen.Key != "" || seen.Rev != 0 || seen.LSN == 0 {
		t.Errorf("%+v", seen)
	}
}

func TestManyPaymentsAtOnceChargeOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	for range 5 {
		id := g.reserved("A")
		codes := make([]string, 8)
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() {
				a := g.persist("/v1/orders/"+id+"/payments", map[string]string{"method_token": "pm_ok"}, "Prefer", "wait=10")
				codes[i] = a.body.Code + a.body.Status // of a problem the status is a number
			})
		}
		wg.Wait()
		slices.Sort(codes)
		if want := append(slices.Repeat([]string{"PAY_002"}, len(codes)-1), "captured"); !slices.Equal(codes, want) {
			t.Errorf("%v", codes)
		}
		if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000}) {
			t.Errorf("the provider has %+v", m)
		}
	}
	g.consistent()
}

// A payment that meets the end of the reservation, or a cancellation, is charged and the order is its buyer's, or it is not, and the
// answer says so.
func TestPayingMeetsExpiryAndCancel(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.ReservationTTL = time.Hour })
	g.stock("A", 1000)
	cancel := func(id string) {
		until(t, "a cancellation is taken in", func() bool {
			a := g.do("POST", "/v1/orders/"+id+"/cancel", nil)
			return a.status == http.StatusAccepted || a.body.Code != "ORD_009" && t.Failed()
		})
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range 48 {
		wg.Go(func() {
			id := g.reserved("A")
			end, name := g.expire, "expire"
			if i%2 == 0 {
				end, name = cancel, "cancel"
			}
			var both sync.WaitGroup
			both.Go(func() {
				<-time.After(time.Duration(i/2) * 3 * time.Millisecond)
				end(id)
			})
			a := g.persist("/v1/orders/"+id+"/payments", map[string]string{"method_token": []string{"pm_ok", "pm_flaky"}[i/2%2]}, "Prefer", "wait=10")
			both.Wait()
			answered := a.body.Code + a.body.Status
			mu.Lock()
			seen[name+" "+answered]++
			mu.Unlock()
			switch name + " " + answered {
			case "expire captured":
				g.ends(id, "confirmed", "paid")
				if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000}) {
					t.Errorf("%s: %+v", a.raw, m)
				}
			case "expire INV_003":
				until(t, "the order is rejected", func() bool { return g.do("GET", "/v1/orders/"+id, nil).body.Status == "rejected" })
				if m := g.moneyOf(id); m != (money{}) {
					t.Errorf("%s: %+v", a.raw, m)
				}
			case "cancel captured":
				g.ends(id, "cancelled", "refunded")
				if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000, refunds: 1, refunded: 1000}) {
					t.Errorf("%s: %+v", a.raw, m)
				}
			case "cancel ORD_002":
				g.ends(id, "cancelled", "none")
				if m := g.moneyOf(id); m != (money{}) {
					t.Errorf("%s: %+v", a.raw, m)
				}
			default:
				t.Errorf("%s: %s", name, a.raw)
			}
		})
	}
	wg.Wait()
	t.Log(seen)
}

// A worker that dies with a request under way leaves a call that the next one sends again, under the same key: one charge.
func TestAWorkerThatDiesWhilePayingChargesOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	g.stopWork()
	a := g.do("POST", "/v1/orders/"+id+"/payments", map[string]string{"method_token": "pm_ok"}, "Idempotency-Key", "pay-"+id)
	if a.status != http.StatusAccepted {
		t.Fatal(a.raw)
	}
	// The worker claimed the call, the provider authorized, and nothing was written.
	if _, err := g.db.Pool.Exec(t.Context(), "UPDATE payment_calls SET tries = 1, fence = 1, next_at = now() + interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	put(t, g, a.body.ID+"-authorize", fmt.Sprintf(`{"kind":"authorize","payment":%q,"amount":{"amount":1000,"currency":"EUR"},"method_token":"pm_ok"}`, a.body.ID))
	stop := g.background(g.assemble().Work)
	until(t, "the payment is captured", func() bool {
		return g.count("payments WHERE status = 'captured'") == 1
	})
	stop()
	g.background(g.assemble().Work)
	g.ends(id, "confirmed", "paid")
	if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000}) {
		t.Errorf("the provider has %+v", m)
	}
	again := g.do("POST", "/v1/orders/"+id+"/payments", map[string]string{"method_token": "pm_ok"}, "Idempotency-Key", "pay-"+id, "Prefer", "wait=10")
	if again.status != http.StatusCreated || again.body.Status != "captured" {
		t.Errorf("the same key: %s", again.raw)
	}
}

func TestManyRefundsAtOnceNeverExceedTheCharge(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	payment := g.pay(id, "pm_ok", http.StatusCreated).body.ID
	const part, clients = 37, 64
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			var a answer
			until(t, "a refund is decided", func() bool { // 64 wait for one row: some may have to come again
				a = g.refund(payment, part)
				return a.status < 500
			})
			mu.Lock()
			defer mu.Unlock()
			answers[a.body.Code+a.body.Status]++
		})
	}
	wg.Wait()
	if answers["succeeded"] != 1000/part || answers["succeeded"]+answers["RFD_001"] != clients {
		t.Errorf("%v", answers)
	}
	rest := g.refund(payment, 0)
	if rest.body.Status != "succeeded" || !strings.Contains(rest.raw, fmt.Sprintf(`"amount":{"amount":%d,`, 1000%part)) {
		t.Errorf("the rest: %s", rest.raw)
	}
	g.ends(id, "confirmed", "refunded")
	if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000, refunds: 1000/part + 1, refunded: 1000}) {
		t.Errorf("the provider has %+v", m)
	}
}

// A client's refund and the saga's share one counter: in whatever order they come, and whatever the provider says to the client's, an order
// that is cancelled is given back once, in full.
func TestAClientsRefundMeetsTheCompensation(t *testing.T) {
	t.Parallel()
	type gate struct {
		mu      sync.Mutex
		refuse  bool          // the refunds that come
		held    chan struct{} // they wait until it is closed; nil: they do not
		arrived chan string   // their keys
	}
	start := func(t *testing.T) (*gateway, *gate, string, string) {
		t.Helper()
		b := &gate{arrived: make(chan string, 16)}
		g := startGateway(t, func(c *Config, _ *pgtest.DB) {
			provider(t, c, func(key string) bool {
				if !strings.HasSuffix(key, "-refund") {
					return true
				}
				b.arrived <- key
				b.mu.Lock()
				held, refuse := b.held, b.refuse
				b.mu.Unlock()
				if held != nil {
					<-held
				}
				return !refuse
			})
		})
		g.stock("A", 10)
		id := g.reserved("A")
		return g, b, id, g.pay(id, "pm_ok", http.StatusCreated).body.ID
	}
	set := func(b *gate, held chan struct{}, refuse bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held, b.refuse = held, refuse
	}
	nothingLeft := func(t *testing.T, a answer) {
		t.Helper()
		if a.body.Code != "RFD_001" || !strings.Contains(a.raw, `"refundable":{"amount":0,`) {
			t.Errorf("a refund of an order that is taken back: %s", a.raw)
		}
	}
	cancel := func(t *testing.T, g *gateway, id string) {
		t.Helper()
		if a := g.do("POST", "/v1/orders/"+id+"/cancel", nil); a.status != http.StatusAccepted {
			t.Fatal(a.raw)
		}
	}
	t.Run("the client's is under way when the order is cancelled", func(t *testing.T) {
		t.Parallel()
		g, b, id, payment := start(t)
		held := make(chan struct{})
		set(b, held, false)
		if a := g.refund(payment, 300, "Prefer", "wait=0"); a.status != http.StatusAccepted {
			t.Fatal(a.raw)
		}
		<-b.arrived
		cancel(t, g, id)
		<-b.arrived
		nothingLeft(t, g.refund(payment, 0))
		close(held)
		g.leaves(id, "A", left{
			"cancelled refunded unfulfilled", stepsRefunded, eventsPaid + " cancel_requested refunded refunded cancelled",
			captured + " refund.created refund.succeeded refund.created refund.succeeded", "cancelled 10 0",
			money{captures: 1, captured: 1000, refunds: 2, refunded: 1000},
		})
	})
	t.Run("the client's comes after the saga's", func(t *testing.T) {
		t.Parallel()
		g, b, id, payment := start(t)
		held := make(chan struct{})
		set(b, held, false)
		cancel(t, g, id)
		<-b.arrived
		nothingLeft(t, g.refund(payment, 300))
		close(held)
		g.leaves(id, "A", leftRefunded)
		nothingLeft(t, g.refund(payment, 1))
	})
	t.Run("the client's succeeded before", func(t *testing.T) {
		t.Parallel()
		g, _, id, payment := start(t)
		if a := g.refund(payment, 300); a.body.Status != "succeeded" {
			t.Fatal(a.raw)
		}
		cancel(t, g, id)
		g.ends(id, "cancelled", "refunded")
		if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000, refunds: 2, refunded: 1000}) {
			t.Errorf("the provider has %+v", m)
		}
	})
	t.Run("the client's gave all back before", func(t *testing.T) {
		t.Parallel()
		g, _, id, payment := start(t)
		if a := g.refund(payment, 0); a.body.Status != "succeeded" {
			t.Fatal(a.raw)
		}
		cancel(t, g, id)
		g.ends(id, "cancelled", "refunded")
		if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000, refunds: 1, refunded: 1000}) {
			t.Errorf("the provider has %+v", m)
		}
	})
	t.Run("the provider refuses the client's while the order is cancelled", func(t *testing.T) {
		t.Parallel()
		g, b, id, payment := start(t)
		held := make(chan struct{})
		set(b, held, true)
		first := g.do("POST", "/v1/payments/"+payment+"/refunds", `{"reason":"broken","amount":{"amount":300,"currency":"EUR"}}`, "Idempotency-Key", "refused-refund")
		if first.status != http.StatusAccepted {
			t.Fatal(first.raw)
		}
		<-b.arrived
		cancel(t, g, id)
		until(t, "the saga asks for the rest", func() bool { return g.count("refunds") == 2 })
		close(held)
		set(b, nil, false)
		again := g.do("POST", "/v1/payments/"+payment+"/refunds", `{"reason":"broken","amount":{"amount":300,"currency":"EUR"}}`, "Idempotency-Key", "refused-refund", "Prefer", "wait=10")
		if again.status != http.StatusCreated || again.body.Status != "failed" || !strings.Contains(again.raw, `"code":"PAY_003"`) {
			t.Errorf("a refund that the provider refused: %s", again.raw)
		}
		until(t, "the saga asks again, later", func() bool {
			_, err := g.db.Pool.Exec(t.Context(), "UPDATE payment_calls SET next_at = now() WHERE next_at > now() + interval '10 seconds'")
			return err == nil && g.do("GET", "/v1/orders/"+id, nil).body.Status == "cancelled"
		})
		g.ends(id, "cancelled", "refunded")
		if m := g.moneyOf(id); m.refunded != 1000 || m.captured != 1000 {
			t.Errorf("the provider has %+v", m)
		}
	})
	t.Run("the provider refuses the client's, and the amount can be refunded anew", func(t *testing.T) {
		t.Parallel()
		g, b, id, payment := start(t)
		set(b, nil, true)
		if a := g.refund(payment, 0); a.status != http.StatusCreated || a.body.Status != "failed" {
			t.Fatal(a.raw)
		}
		g.ends(id, "confirmed", "paid")
		set(b, nil, false)
		if a := g.refund(payment, 0); a.body.Status != "succeeded" {
			t.Error(a.raw)
		}
		g.ends(id, "confirmed", "refunded")
		if m := g.moneyOf(id); m != (money{captures: 1, captured: 1000, refunds: 1, refunded: 1000}) {
			t.Errorf("the provider has %+v", m)
		}
	})
}

// An order of nothing is paid without the provider, has nothing to refund, and is refunded once it is cancelled.
func TestAnOrderOfNothingIsPaidAndRefunded(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("FREE", 5)
	if _, err := g.db.Pool.Exec(t.Context(), `UPDATE products SET prices = '{"EUR": 0}'`); err != nil {
		t.Fatal(err)
	}
	id := g.reserved("FREE")
	payment := g.pay(id, "pm_ok", http.StatusCreated).body.ID
	g.ends(id, "confirmed", "paid")
	if a := g.refund(payment, 0); a.body.Code != "RFD_001" {
		t.Errorf("nothing is left: %s", a.raw)
	}
	if a := g.do("POST", "/v1/orders/"+id+"/cancel", nil, "Prefer", "wait=10"); a.body.Status != "cancelled" || a.body.PaymentStatus != "refunded" {
		t.Error(a.raw)
	}
	if n := len(g.ledger()); n != 0 {
		t.Errorf("the provider was asked for %d operations on nothing", n)
	}
}

// Orders and payments of another account can neither be paid nor refunded.
func TestOtherAccountsPayAndRefundNothing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 10)
	id := g.reserved("A")
	bob := []string{"Authorization", "Bearer " + bobKey}
	if a := g.pay(id, "pm_ok", http.StatusNotFound, bob...); a.body.Code != "ORD_001" {
		t.Error(a.raw)
	}
	payment := g.pay(id, "pm_ok", http.StatusCreated).body.ID
	if a := g.refund(payment, 1, bob...); a.body.Code != "PAY_001" {
		t.Error(a.raw)
	}
	if n := g.count("refunds") + g.count("payments"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// TestAListOfATimeHasWhatWasCreatedInIt: a list from the created_at of an entry has it, and one up to it has not, whichever list it is and whoever
// made the entry.
func TestAListOfATimeHasWhatWasCreatedInIt(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stock("A", 100)
	for range 5 { // their payments and refunds are the saga's
		a := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10")
		if a = g.do("POST", "/v1/orders/"+a.body.ID+"/cancel", nil, "Prefer", "wait=10"); a.body.Status != "cancelled" {
			t.Fatal(a.raw)
		}
	}
	paid := g.pay(g.reserved("A"), "pm_ok", http.StatusCreated)
	last := g.refund(paid.body.ID, 1).header.Get("X-Consistency-Token")
	lists := 0
	for _, op := range operations(t) {
		if !slices.ContainsFunc(op.Parameters, func(p parameter) bool { return p.Name == "created_from" }) {
			continue
		}
		lists++
		all := g.read(op.path, last).body.Data
		if len(all) != 6 {
			t.Errorf("%s has %d entries of 6", op.OperationID, len(all))
		}
		for _, entry := range all {
			var e struct {
				ID        string `json:"id"`
				CreatedAt string `json:"created_at"`
			}
			must(t, json.Unmarshal(entry, &e))
			for bound, want := range map[string]bool{"created_from": true, "created_to": false} {
				a := g.read(op.path+"?"+bound+"="+e.CreatedAt, last)
				if strings.Contains(a.raw, `"id":"`+e.ID+`"`) != want {
					t.Errorf("%s with %s %s, the created_at of %s, has it: %t", op.OperationID, bound, e.CreatedAt, e.ID, !want)
				}
			}
		}
	}
	if lists < 3 {
		t.Errorf("the contract has %d lists of a time", lists)
	}
}
