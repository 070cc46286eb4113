package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// parkedGateway is a gateway with the subcommands of parked messages.
type parkedGateway struct {
	*gateway
	orders []string
}

// startParked starts a gateway in which the cancel commands of two orders are parked, because their stock was changed by hand. Behind the
// first waits an expire command. The test's environment names its primary.
func startParked(t *testing.T) parkedGateway {
	t.Helper()
	g := parkedGateway{gateway: startGateway(t, nil)}
	t.Setenv("ORDERGATE_PRIMARY_URL", g.db.PrimaryURL)
	g.stock("A", 10)
	for range 2 {
		g.orders = append(g.orders, g.do("POST", "/v1/orders", draft("A", 1, ""), "Prefer", "wait=10").body.ID)
	}
	g.exec(`UPDATE stock SET reserved = 0`)
	for i, id := range g.orders {
		g.do("POST", "/v1/orders/"+id+"/cancel", "")
		until(t, "a parked message", func() bool { return g.count("parked_messages") == i+1 })
	}
	g.exec(`UPDATE stock_reservations SET expires_at = now() - interval '1 second' WHERE order_id = $1`, strings.TrimPrefix(g.orders[0], "ord_"))
	until(t, "a message behind it", func() bool { return g.count("parked_messages") == 3 })
	return g
}

func (g parkedGateway) exec(sql string, args ...any) {
	g.t.Helper()
	if tag, err := g.db.Pool.Exec(g.t.Context(), sql, args...); err != nil || tag.RowsAffected() == 0 {
		g.t.Fatal(sql, tag, err)
	}
}

// run runs `ordergate parked ...` and returns its output, with an error behind it.
func (g parkedGateway) run(answer string, args ...string) (out, logs string, ok bool) {
	g.t.Helper()
	var o, l bytes.Buffer
	err := Main(g.t.Context(), append([]string{"parked"}, args...), strings.NewReader(answer), &o, &l)
	if err != nil {
		fmt.Fprintln(&o, err)
	}
	return o.String(), l.String(), err == nil
}

// expect runs `ordergate parked ...`, whose output must have each of the words.
func (g parkedGateway) expect(ok bool, args string, words ...string) (out string) {
	g.t.Helper()
	out, logs, succeeded := g.run("", strings.Fields(args)...)
	for _, w := range words {
		if !strings.Contains(out, w) {
			g.t.Errorf("parked %s lacks %q:\n%s", args, w, out)
		}
	}
	if succeeded != ok || logs != "" {
		g.t.Errorf("parked %s: success %v\n%s%s", args, succeeded, out, logs)
	}
	return out
}

func (g parkedGateway) list(args string) (l parkedList) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.expect(true, "list -json "+args)), &l); err != nil {
		g.t.Fatal(err)
	}
	return l
}

func (g parkedGateway) status(id string) string {
	return g.do("GET", "/v1/orders/"+id, nil).body.Status
}

// TestParkedMessages: an operator sees which messages are parked and why, and sends them again once the cause is mended.
func TestParkedMessages(t *testing.T) {
	g := startParked(t)
	l := g.list("")
	if l.Messages != 3 || l.Queues != 2 || len(l.First) != 2 || len(l.Causes) != 1 || l.Causes[0].Queues != 2 || l.Causes[0].Messages != 3 {
		t.Fatalf("list: %+v", l)
	}
	first := l.First[0]
	if first.OrderID != g.orders[0] || first.Consumer != "inventory" || first.Type != "inventory.cancel" || first.Messages != 2 || first.Payload != nil ||
		first.CreatedAt == nil || first.CreatedAt.After(first.ParkedAt) || !strings.Contains(first.Cause, "0 of 1 rows of stock") {
		t.Errorf("the first of a queue: %+v", first)
	}
	g.expect(true, "list", first.ID.String(), "inventory.cancel", "0 of 1 rows of stock", "parked: 3 messages in 2 queues", "CONSUMER   QUEUES  MESSAGES")
	g.expect(true, "list -limit 1", "and 1 more: -limit 0")
	if one := g.list("-order " + g.orders[1] + " -consumer inventory"); one.Messages != 1 || len(one.First) != 1 || one.First[0].OrderID != g.orders[1] {
		t.Errorf("by order: %+v", one)
	}
	g.expect(true, "list -consumer saga.payment", "no message is parked")
	out := g.expect(true, "show "+first.ID.String(), "0 of 1 rows of stock", `"order_id": "`+g.orders[0]+`"`, "inventory.cancel, schema 1", "1, test mode", "behind it: 1", "inventory.expire")
	if strings.Contains(out, "waits behind") {
		t.Errorf("the first waits: %s", out)
	}
	var shown struct {
		Payload struct {
			OrderID string `json:"order_id"`
		} `json:"payload"`
		Behind []uuid.UUID `json:"behind"`
	}
	must(t, json.Unmarshal([]byte(g.expect(true, "show -json "+first.ID.String())), &shown))
	if shown.Payload.OrderID != g.orders[0] || len(shown.Behind) != 1 {
		t.Fatalf("shown: %+v", shown)
	}
	last := shown.Behind[0].String()
	g.expect(true, "show "+last, "waits behind  "+first.ID.String(), "behind a parked message")

	g.expect(true, "retry "+first.ID.String(), "2 messages of 1 queues") // nothing is mended
	until(t, "parked again", func() bool { return g.count("parked_messages") == 3 })
	if again := g.list("-order " + g.orders[0]); again.First[0].ID != first.ID || again.First[0].Messages != 2 {
		t.Errorf("parked again: %+v", again)
	}
	g.exec(`UPDATE stock SET reserved = 2`)
	g.expect(true, "retry "+last, "2 messages of 1 queues") // with what it waits behind
	until(t, "a cancelled order", func() bool { return g.status(g.orders[0]) == "cancelled" })
	until(t, "an empty outbox", func() bool { return g.count("outbox") == 0 })
	g.expect(true, "retry "+last, "is not parked: it was handled by, or dropped for, inventory", "0 messages")
	if g.status(g.orders[1]) == "cancelled" {
		t.Error("another queue was retried")
	}
	g.expect(true, "retry -all -consumer saga.payment", "0 messages of 0 queues")
	g.expect(true, "retry -all", "1 messages of 1 queues")
	until(t, "the other cancelled order", func() bool { return g.status(g.orders[1]) == "cancelled" })
	g.expect(true, "retry -all", "0 messages of 0 queues")
	g.expect(true, "list", "no message is parked")
}

// TestParkedMistakes: an argument that names nothing is an error that says so.
func TestParkedMistakes(t *testing.T) {
	g := startParked(t)
	unknown := uuid.NewString()
	for args, want := range map[string]string{
		"show":                      "needs ID",
		"show nonsense":             `"nonsense" is not the id of a message`,
		"show " + unknown:           "message " + unknown + " is not parked: neither outbox nor inbox has it",
		"retry " + unknown:          "neither outbox nor inbox has it",
		"drop -yes " + unknown:      "neither outbox nor inbox has it",
		"list -order ord_1":         `"ord_1" is not the id of an order`,
		"list -consumer dance":      `no consumer "dance"; there are inventory, saga.inventory,`,
		"retry -all -consumer x":    `no consumer "x"`,
		"retry -order x":            `"x" is not the id of an order`,
		"retry":                     "choose one of",
		"retry -all " + unknown:     "choose one of",
		"retry -all -order ord_1":   "choose one of",
		"retry " + unknown + " two": `does not take "two"`,
	} {
		g.expect(false, args, want)
	}
	g.exec(`INSERT INTO parked_messages (consumer, topic, key, message_id, trace_id, payload, cause)
		SELECT 'another', topic, key, message_id, trace_id, 'torn', cause FROM parked_messages WHERE key = $1`, g.orders[1])
	id := g.list("-order " + g.orders[1]).First[0].ID.String()
	g.expect(false, "show "+id, "is parked for another and inventory: choose one by -consumer")
	g.expect(true, "show -consumer another "+id, "decode envelope", `no JSON: "torn"`)
	if out := g.expect(true, "show -json -consumer another "+id); !strings.Contains(out, `"payload": "torn"`) {
		t.Error(out)
	}
	g.expect(true, "list -consumer another", "1 messages in 1 queues") // a consumer of an earlier version
	t.Setenv("ORDERGATE_PRIMARY_URL", "")
	t.Setenv("ORDERGATE_DATA_DIR", t.TempDir())
	g.expect(false, "list", "ORDERGATE_PRIMARY_URL is not set, and no stack runs in")
	g.broken = true
}

// TestDroppedMessage: a message is dropped once it is confirmed, alone, and the log says by whom.
func TestDroppedMessage(t *testing.T) {
	g := startParked(t)
	g.broken = true
	first := g.list("").First[0]
	for _, answer := range []string{"", "no\n", "y\n"} {
		out, logs, ok := g.run(answer, "drop", first.ID.String())
		if ok || logs != "" || !strings.Contains(out, "nothing was dropped") || !strings.Contains(out, "1 later messages of the order stay parked") ||
			!strings.Contains(out, lostWith["inventory"]) || !strings.Contains(out, `"type": "inventory.cancel"`) {
			t.Errorf("%q: %v %s %s", answer, ok, out, logs)
		}
	}
	if n := g.count("parked_messages"); n != 3 {
		t.Fatalf("%d are parked", n)
	}
	out, logs, ok := g.run("yes\n", "drop", first.ID.String())
	var line struct {
		Time         time.Time `json:"time"`
		TraceID      string    `json:"trace_id"`
		DatabaseUser string    `json:"database_user"`
		ID           string    `json:"id"`
		Consumer     string    `json:"consumer"`
		Key          string    `json:"key"`
		Outcome      string    `json:"outcome"`
		Operator     string    `json:"operator"`
	}
	must(t, json.NewDecoder(strings.NewReader(logs)).Decode(&line)) // the first line
	host, _ := os.Hostname()
	if !ok || !strings.Contains(out, "go on with: ordergate parked retry -order "+g.orders[0]) {
		t.Errorf("%v %s", ok, out)
	}
	if line.ID != first.ID.String() || line.Consumer != "inventory" || line.Key != g.orders[0] || line.Outcome != "dropped" || line.TraceID != first.TraceID ||
		!strings.HasSuffix(line.Operator, "@"+host) || line.DatabaseUser == "" || time.Since(line.Time).Abs() > time.Minute {
		t.Errorf("log: %s", logs)
	}
	if left := g.list("-order " + g.orders[0]); left.Messages != 1 || left.First[0].Type != "inventory.expire" {
		t.Errorf("left: %+v", left)
	}
	g.expect(true, "list -order "+g.orders[0], "waits for a retry: the message before it was dropped")
	g.expect(false, "drop -yes "+first.ID.String(), "it was handled by, or dropped for, inventory")
	g.exec(`UPDATE stock SET reserved = 2`)
	g.expect(true, "retry -order "+g.orders[0], "1 messages of 1 queues")
	until(t, "the expiry", func() bool { return g.count("stock_reservations WHERE status = 'expired'") == 1 })
	if n := g.count("parked_messages"); n != 1 {
		t.Errorf("%d are parked", n)
	}
}

// TestEveryConsumerSaysWhatIsLost: `parked drop` knows what a message means to each consumer.
func TestEveryConsumerSaysWhatIsLost(t *testing.T) {
	t.Parallel()
	for _, name := range consumerNames() {
		if lostWith[name] == "" {
			t.Errorf("lostWith has no line for %s", name)
		}
	}
	if len(lostWith) != len(consumerNames()) {
		t.Error("lostWith has a consumer that there is not")
	}
}
