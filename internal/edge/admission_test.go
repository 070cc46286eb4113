package edge

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/internal/guard"
)

// overloaded has so much to do that even urgent work is refused.
func overloaded(t *testing.T) *guard.Admission {
	t.Helper()
	a := guard.NewAdmission(nil)
	for n := 0; a.Check(guard.Urgent) == nil; n++ {
		if n > 300 { // enough for an overload, soon
			<-time.After(10 * time.Millisecond)
			continue
		}
		if _, err := a.Begin(guard.Urgent); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// A command is refused before its body is looked at, and its connection stays open; what needs no database is answered.
func TestAnOverloadRefusesCommands(t *testing.T) {
	s := deadServer(t)
	s.cfg.Admission = overloaded(t)
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(s)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	send := func(method, path, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+testKey)
		w, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, w.Body)
		_ = w.Body.Close()
		return w
	}
	for range 100 {
		if w := send("POST", "/v1/orders", "no JSON"); w.StatusCode != 503 || w.Header.Get("Retry-After") == "" {
			t.Fatal(w.StatusCode, w.Header)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if w := send("GET", "/v1/errors", ""); w.StatusCode != 200 {
		t.Error("a page of the contract: ", w.StatusCode)
	}
	if w := call(s, "POST", "/v1/orders", goodOrder, "Authorization", ""); codeOf(w) != "401 AUTH_001" { // the order of checks
		t.Error(w.Code, w.Body)
	}
	if w := call(s, "POST", "/v1/orders", goodOrder, "Idempotency-Key", ""); codeOf(w) != "503 RATE_003" {
		t.Error(w.Code, w.Body)
	}
}

// Each command has its place in the order in which an overload refuses.
func TestWhatAnOverloadRefusesLast(t *testing.T) {
	t.Parallel()
	known := map[string]guard.Priority{
		"placeOrder": guard.Normal, "quoteOrder": guard.Normal, "createProduct": guard.Normal, "updateProduct": guard.Normal, "adjustInventory": guard.Normal,
		"cancelOrder": guard.Urgent, "updateOrder": guard.Urgent, "payOrder": guard.Urgent, "refundPayment": guard.Urgent, "shipOrder": guard.Urgent,
		"deliverShipment": guard.Urgent, "takeProviderCallback": guard.Urgent,
	}
	for _, o := range api.Operations[*request, response](handlers{}) {
		if o.Method == http.MethodGet {
			continue
		}
		if p, is := known[o.ID]; !is || p != priorityOf(o.Path) {
			t.Errorf("%s has the priority %d", o.ID, priorityOf(o.Path))
		}
		delete(known, o.ID)
	}
	if len(known) > 0 {
		t.Errorf("there is no %v", known)
	}
}
