package command

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

// The rules of the protocol. Those of ends hold where nothing happens any more unless a client or the time does something.
const (
	ruleCharge      = "at most one charge stands"
	ruleCapture     = "nothing is captured without the stock, nor after a cancel is recorded"
	ruleStock       = "stock is conserved"
	ruleReservation = "a reservation is confirmed, cancelled or expired once"
	ruleRefund      = "no more is given back than was captured"
	ruleProvider    = "the provider is asked only for what the payment's state allows"
	ruleStep        = "no step is started or undone twice"
	ruleTable       = "an order's events follow the table"
	ruleFold        = "a state is the fold of its events"
	ruleAgain       = "a reply that comes again changes nothing"
	ruleSweep       = "the sweep takes back only what nobody here moves"
	ruleBack        = "an order is rejected or cancelled when all is back, and confirmed when all is done"
	ruleGuard       = "the database's guards are never met"
	ruleHandled     = "every message can be handled"
	ruleTaken       = "at the end stock agrees with the order"
	ruleMoney       = "at the end money agrees with the order"
	ruleShip        = "nothing is shipped but what is taken, of an order that stays confirmed or is completed"
	ruleDecided     = "at the end the order is decided"
)

// parties are the functions that decide, and the guards of the database that the model has in their place. A mutation replaces one.
type parties struct {
	stock    func(e outbox.Envelope, c inventory.Command, r *inventory.Reservation, s inventory.Stock, ttl time.Duration, rec order.Recorder) (*inventory.Reservation, *outbox.Message)
	plan     func(amount int64, overdue bool, tries int32) (payment.Ask, payment.Outcome)
	conclude func(op payment.Operation, overdue bool, lastCode string, o payment.Outcome) (payment.Outcome, error)
	resolve  func(p payment.Locked, op payment.Operation, o payment.Outcome, rec order.Recorder) payment.Changes
	refund   func(p payment.Locked, r *pay.Refund, refused int64, o payment.Outcome, rec order.Recorder) payment.Changes
	reply    func(c *orderChange, e outbox.Envelope, apply applyReply, rec order.Recorder) (bool, error)
	client   func(op operation, l *loaded, rec order.Recorder) (effect, error)
	released func(at pay.Standing) bool
	orphan   func(k payment.Known, at pay.Standing) (payment.Operation, order.Money)
	inbox    bool // a message is handled once
	fence    bool // an outcome counts only under the last claim
}

func realParties() parties {
	return parties{
		stock: inventory.Decide, plan: payment.Plan, conclude: payment.Conclude, resolve: payment.Resolve,
		refund: payment.ResolveRefund, reply: takeReply, orphan: payment.Sweeps, released: pay.Standing.Released,
		client: func(op operation, l *loaded, rec order.Recorder) (effect, error) { return op.decide(l, rec) },
		inbox:  true, fence: true,
	}
}

// scope bounds what the environment does in one run. Within it everything is tried.
type scope struct {
	paid    bool  // the order is placed with a payment
	price   int64 // of a piece; the order has two
	onHand  int64 // pieces
	faults  int   // copies of messages, lost, late and stale answers, crashes, refused refunds
	cards   int   // payments of an order that was placed without one
	refunds int   // by the client
	ships   int   // shipments
	sweeps  int   // of the provider's ledger
}

// system is everything that a run has changed: the database's rows, the queues and the provider. It is never changed: a transition works on a copy.
type system struct {
	*parties
	scope // what is left of it

	// The command side's rows.
	ref     order.Ref
	state   []byte       // JSON, as the orders table stores it
	read    *order.Order // restored from it
	shipped []order.Shipment
	steps   []step
	started string // the commands of steps that were sent

	// Inventory's rows.
	pieces      int64    // on hand at first
	level       [2]int64 // on hand, reserved
	reservation *inventory.Reservation
	expiring    bool

	// Payment's rows.
	payments []paymentRow
	refunded []refundRow
	calls    []callRow

	queues [3][]message  // by topic, in order
	copies []message     // handled once already; they may come again at any time
	late   []request     // sent to the provider by a worker that waits no longer
	stale  []staleAnswer // held by workers whose lease has ended

	provider []operationRow
	sweeping *sweeping // the sweep that looks at a payment

	wrong *breach
}

type paymentRow struct {
	*pay.Payment
	history []order.Event
}

type refundRow struct {
	*pay.Refund
	history []order.Event
}

// callRow is a row of payment_calls.
type callRow struct {
	payment.Call
	due, overdue, inDoubt bool
	tries, fence          int32
	lastCode              string
}

// message is a message with its name, which has no random part.
type message struct {
	outbox.Envelope
	topic int
	name  string
	again bool // it was handled before
}

// request is one to the provider.
type request struct {
	key, payment string
	name         string // of the key, without a random part
	kind         payment.Operation
	amount       int64
}

// staleAnswer is one of the provider to a worker that is slow to write it.
type staleAnswer struct {
	call     int
	fence    int32
	overdue  bool
	lastCode string
	outcome  payment.Outcome
}

// operationRow is an entry of the provider's ledger: the one outcome of a key.
type operationRow struct {
	request
	code errcode.Code // empty: it succeeded
}

// sweeping is how far a sweep has come with a payment.
type sweeping struct {
	payment int
	at      pay.Standing
	decided request // empty: what our database has is not read yet
}

var topics = []string{inventory.TopicCommands, inventory.TopicReplies, payment.TopicReplies}

const modelTTL = 15 * time.Minute

var (
	modelNow  = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	modelItem = order.Item{Owner: alice, SKU: "A"}
)

func modelRecorder() order.Recorder {
	return order.Recorder{NewID: func() order.ID { return testIDs.Mint(modelNow, alice.Account) }, Now: modelNow, Cause: order.Cause{Actor: "model"}}
}

// newSystem is the system after an order was placed.
func newSystem(s scope, p parties) *system {
	w := &system{parties: &p, scope: s, pieces: s.onHand, level: [2]int64{s.onHand, 0}}
	body := api.PlaceOrder{Currency: "EUR", CustomerRef: "c", Lines: []api.PlaceOrderLine{{Sku: modelItem.SKU, Quantity: 2}}}
	if s.paid {
		body.Payment = &api.PlaceOrderPayment{MethodToken: "pm_ok"}
	}
	product := &order.Product{Name: "A", Active: true, Prices: map[string]int64{"EUR": s.price}}
	w.ask(placeOrder{alice, body}, &loaded{products: map[order.Item]*order.Product{modelItem: product}})
	return w
}

func (w *system) broken() *breach { return w.wrong }

func (w *system) fail(b *breach) {
	if w.wrong == nil { // the first says most
		w.wrong = b
	}
}

// change is a transition's copy of the system.
func (w *system) change(do func(n *system)) *system {
	n := *w
	do(&n)
	return &n
}

// The rows of the command side.

// order is the order as it is read under its lock.
func (w *system) order() *order.Order {
	o := *w.read
	o.Lines, o.Metadata = slices.Clone(o.Lines), maps.Clone(o.Metadata)
	return &o
}

func (w *system) load() *orderChange {
	c := &orderChange{owner: w.ref.Owner, order: w.order(), baseVersion: w.read.Version}
	for _, st := range w.steps {
		st.moved = false
		c.steps = append(c.steps, &st)
	}
	return c
}

// ask lets a client's command decide, writes its effect and tells whether it was accepted. A refusal changes nothing.
func (w *system) ask(op operation, l *loaded) bool {
	e, err := w.client(op, l, modelRecorder())
	if err != nil {
		if refusal := apierr.From(err); refusal.Code == errcode.SYS001 {
			w.fail(breaks(ruleHandled, "%v", refusal))
		}
		return false
	}
	for _, c := range e.orders {
		w.writeOrder(c)
	}
	w.writePayments(e.payments)
	for _, c := range e.shipments {
		w.writeShipment(c)
	}
	return true
}

func (w *system) writeShipment(c *shipmentChange) {
	w.shipped = slices.Clone(w.shipped)
	if i := slices.IndexFunc(w.shipped, func(s order.Shipment) bool { return s.ID == c.shipment.ID }); i >= 0 {
		w.shipped[i] = *c.shipment
		return
	}
	w.shipped = append(w.shipped, *c.shipment)
	pieces := int64(0)
	for _, s := range w.shipped {
		pieces += s.Lines[0].Quantity
	}
	if line := w.read.Lines[0]; pieces != line.Shipped || pieces > line.Quantity || pick(w.reservation).Status != inventory.StatusConfirmed {
		w.fail(breaks(ruleShip, "of %d pieces %d are shipped, the order says %d, the stock is %s", line.Quantity, pieces, line.Shipped, pick(w.reservation).Status))
	}
}

// writeOrder writes an order's events, its row, its steps and its messages, as rows.write does.
func (w *system) writeOrder(c *orderChange) {
	before, now := &order.Order{ID: c.order.ID}, encode(c.order)
	if w.read != nil {
		before = w.order()
	}
	for _, e := range c.events {
		from := *before
		if !bytes.Equal(e.PrevHash, before.HeadHash) {
			w.fail(breaks(ruleFold, "%s does not follow the event before it", e.Type))
		}
		if err := before.Apply(e); err != nil {
			w.fail(breaks(ruleFold, "%v", err))
		}
		if from.Version > 0 && from.Status != before.Status && !from.CanBecome(before.Status) {
			w.fail(breaks(ruleTable, "%s made a %s order %s", e.Type, from.Status, before.Status))
		}
	}
	if folded := encode(before); !bytes.Equal(folded, now) || before.Version != c.order.Version {
		w.fail(breaks(ruleFold, "%s is stored as %s", folded, now))
	}
	read, err := order.Restore(c.order.ID, c.order.Version, c.order.HeadHash, now)
	if err != nil {
		w.fail(breaks(ruleFold, "%v", err))
		return
	}
	w.ref, w.state, w.read = c.ref(), now, read
	if len(c.events) > 0 {
		w.judgeOrder()
	}
	steps := make([]step, len(c.steps))
	for i, st := range c.steps {
		if steps[i] = *st; !c.steps.moved() {
			steps[i] = w.steps[i] // it is not written
		}
		if slices.ContainsFunc(steps[:i], func(other step) bool { return other.name == st.name && other.attempt == st.attempt }) {
			w.fail(breaks(ruleStep, "%s %d is there twice", st.name, st.attempt))
		}
	}
	w.steps = steps
	w.send(c.messages)
	w.writePayments(c.payments)
	w.judgeSteps(c)
}

// judgeOrder judges what the order tells: when it ends, all is back, and when it is confirmed, all is done.
func (w *system) judgeOrder() {
	stock, standing, charged := pick(w.reservation).Status, 0, w.read.Total.Amount == 0
	for i := range w.payments {
		a := w.accountOf(i)
		if stands(a) {
			standing++
		}
		charged = charged || a.Captured.Amount == w.read.Total.Amount
	}
	switch w.read.Status {
	case order.StatusRejected, order.StatusCancelled:
		if standing > 0 || stock == inventory.StatusHeld || stock == inventory.StatusConfirmed {
			w.fail(breaks(ruleBack, "it is %s, %d payments are held or charged, its stock is %s", w.read.Status, standing, stock))
		}
	case order.StatusConfirmed, order.StatusCompleted:
		if w.read.CancelRequestedAt == nil && (!charged || stock != inventory.StatusConfirmed) {
			w.fail(breaks(ruleBack, "it is %s, charged: %t, its stock is %s", w.read.Status, charged, stock))
		}
	case order.StatusPending, order.StatusReserved:
	}
}

// judgeSteps judges the commands that are sent and the calls that become due: of each step one, and of the steps that take the same back one.
func (w *system) judgeSteps(change *orderChange) {
	var started []string
	for _, m := range change.messages {
		started = append(started, fmt.Sprint(m.Type, reservation, " "))
	}
	for _, c := range change.payments.Calls {
		started = append(started, fmt.Sprint(c.Operation, c.Payment.Attempt, " "))
	}
	for _, name := range started {
		if strings.Contains(w.started, name) {
			w.fail(breaks(ruleStep, "%sis started twice", name))
		}
		w.started += name
	}
	for _, p := range w.payments {
		if strings.Contains(w.started, fmt.Sprint(payment.Void, p.Attempt)) && strings.Contains(w.started, fmt.Sprint(payment.Refund, p.Attempt)) {
			w.fail(breaks(ruleStep, "payment %d is voided and refunded", p.Attempt))
		}
	}
}

// The queues.

// send puts messages into their queues.
func (w *system) send(messages []outbox.Message) {
	for _, m := range messages {
		topic := slices.Index(topics, m.Topic)
		w.queues[topic] = append(slices.Clone(w.queues[topic]), message{m.Envelope, topic, m.Type + w.withoutIDs(string(m.Data)), false})
	}
}

// withoutIDs replaces the id of a payment or a refund in a text by the place of its row.
func (w *system) withoutIDs(s string) string {
	for _, prefix := range []string{order.PrefixPayment, order.PrefixRefund} {
		if _, after, found := strings.Cut(s, `"`+prefix); found {
			text, _, _ := strings.Cut(after, `"`)
			id, _ := order.Parse(prefix, prefix+text)
			s = strings.Replace(s, prefix+text, w.place(id), 1)
		}
	}
	return s
}

func (w *system) place(id order.ID) string {
	if i := w.paymentAt(id); i >= 0 {
		return "p" + strconv.Itoa(i)
	}
	if i := w.refundAt(id); i >= 0 {
		return "r" + strconv.Itoa(i)
	}
	return "new"
}

// handle is the transaction that handles a message.
func (w *system) handle(m message) {
	switch m.topic {
	case 0:
		w.handleStock(m)
	case 1:
		w.handleReply(m, applyStockReply)
	case 2:
		w.handleReply(m, applyPaymentReply)
	}
}

func (w *system) handleReply(m message, apply applyReply) {
	c := w.load()
	moved, err := w.reply(c, m.Envelope, apply, modelRecorder())
	if err != nil {
		w.fail(breaks(ruleHandled, "%v", err))
	}
	if moved && m.again && m.Type != payment.Refunded { // the inbox drops that one
		w.fail(breaks(ruleAgain, "%s", m.name))
	}
	if moved {
		w.writeOrder(c)
	}
}

func (w *system) handleStock(m message) {
	var c inventory.Command
	if err := m.Decode(&c); err != nil {
		w.fail(breaks(ruleHandled, "%v", err))
		return
	}
	level, r, reply := w.decideStock(m.Envelope, c, w.level, w.reservation)
	if reply == nil {
		return
	}
	w.fail(judgeReservation(w.reservation, r))
	w.fail(judgeStock(level, w.pieces, r))
	w.level, w.reservation = level, r
	w.send([]outbox.Message{*reply})
}

// decideStock lets inventory decide on a copy of the rows.
func (p *parties) decideStock(e outbox.Envelope, c inventory.Command, level [2]int64, r *inventory.Reservation) ([2]int64, *inventory.Reservation, *outbox.Message) {
	stock := inventory.Stock{}
	row := stock.Add(modelItem, modelRecorder().Now)
	row.OnHand, row.Reserved = level[0], level[1]
	if r != nil {
		read := *r
		r = &read
	}
	r, reply := p.stock(e, c, r, stock, modelTTL, modelRecorder())
	return [2]int64{row.OnHand, row.Reserved}, r, reply
}

// judgeStock judges the levels of an item by all of its reservations.
func judgeStock(level [2]int64, pieces int64, reservations ...*inventory.Reservation) *breach {
	held, taken := int64(0), int64(0)
	for _, r := range reservations {
		for i := range pick(r).Lines {
			switch r.Status {
			case inventory.StatusHeld:
				held += r.Lines[i].Quantity
			case inventory.StatusConfirmed:
				taken += r.Lines[i].Quantity
			}
		}
	}
	if level[0]+taken != pieces || level[1] != held || level[1] > level[0] {
		return breaks(ruleStock, "of %d pieces %d are on hand and %d taken, %d are reserved and %d held", pieces, level[0], taken, level[1], held)
	}
	return nil
}

// pick is the reservation, or an empty one.
func pick(r *inventory.Reservation) inventory.Reservation {
	if r == nil {
		return inventory.Reservation{}
	}
	return *r
}

// lives are the courses that a reservation can take.
var lives = []string{" held", " refused", " cancelled", "held confirmed", "held cancelled", "held expired", "confirmed cancelled"}

// judgeReservation judges what became of a reservation.
func judgeReservation(before, after *inventory.Reservation) *breach {
	from, to := pick(before).Status, pick(after).Status
	if from != to && !slices.Contains(lives, from+" "+to) {
		return breaks(ruleReservation, "%s became %s", cmp.Or(from, "nothing"), cmp.Or(to, "nothing"))
	}
	return nil
}

// The rows of payment.

func (w *system) paymentAt(id order.ID) int {
	return slices.IndexFunc(w.payments, func(p paymentRow) bool { return p.ID == id })
}

func (w *system) refundAt(id order.ID) int {
	return slices.IndexFunc(w.refunded, func(r refundRow) bool { return r.ID == id })
}

// locked is a payment as it is read under its lock.
func (w *system) locked(i int) payment.Locked {
	p := *w.payments[i].Payment
	all := slices.ContainsFunc(w.calls, func(c callRow) bool { return c.Subject == p.ID && c.Operation == payment.Refund && !c.due })
	return payment.Locked{Payment: &p, RefundAll: all}
}

// writePayments writes what changed of payments, as Changes.Write does.
func (w *system) writePayments(ch payment.Changes) {
	w.payments, w.refunded, w.calls = slices.Clone(w.payments), slices.Clone(w.refunded), slices.Clone(w.calls)
	for _, p := range ch.NewPayments {
		if slices.ContainsFunc(w.payments, func(other paymentRow) bool { return other.Attempt == p.Attempt }) {
			w.fail(breaks(ruleGuard, "payment %d is there twice", p.Attempt))
		}
		w.payments = append(w.payments, paymentRow{Payment: p})
	}
	for _, p := range ch.Payments {
		w.payments[w.paymentAt(p.ID)].Payment = p
	}
	for _, r := range ch.NewRefunds {
		w.refunded = append(w.refunded, refundRow{Refund: r})
	}
	for _, r := range ch.Refunds {
		w.refunded[w.refundAt(r.ID)].Refund = r
	}
	for _, e := range ch.Events {
		if id, ok := order.Parse(order.PrefixPayment, e.Resource.ID); ok {
			row := &w.payments[w.paymentAt(id)]
			row.history = append(slices.Clone(row.history), e.Event)
			if p, err := pay.Fold(row.Ref, row.history, nil); err != nil || p.Status != row.Status || p.FailureCode != row.FailureCode {
				w.fail(breaks(ruleFold, "a payment is stored as %+v: %v", row.Payment, err))
			}
		} else if id, ok := order.Parse(order.PrefixRefund, e.Resource.ID); ok {
			row := &w.refunded[w.refundAt(id)]
			row.history = append(slices.Clone(row.history), e.Event)
			if r, err := pay.FoldRefund(row.Ref, row.history, nil); err != nil || r.Status != row.Status || r.Amount != row.Amount {
				w.fail(breaks(ruleFold, "a refund is stored as %+v: %v", row.Refund, err))
			}
		}
	}
	for _, c := range ch.Calls {
		if !slices.ContainsFunc(w.calls, func(other callRow) bool { return other.Subject == c.Subject && other.Operation == c.Operation }) {
			w.calls = append(w.calls, callRow{Call: c, due: true})
		}
	}
	w.send(ch.Messages)
	w.judgePayments()
}

func (w *system) judgePayments() {
	for _, p := range w.payments {
		done, pending := int64(0), int64(0)
		for _, r := range w.refunded {
			switch {
			case r.PaymentID != p.ID:
			case r.Status == pay.RefundSucceeded:
				done += r.Amount.Amount
			case r.Status == pay.RefundPending:
				pending += r.Amount.Amount
			}
		}
		if p.Refunded < 0 || p.RefundPending < 0 || p.Refunded+p.RefundPending > p.Amount.Amount || done+pending > p.Amount.Amount {
			w.fail(breaks(ruleRefund, "of %d captured %d are given back and %d are to be, the payment says %d and %d",
				p.Amount.Amount, done, pending, p.Refunded, p.RefundPending))
		}
		if p.Refunded != done || p.RefundPending != pending {
			w.fail(breaks(ruleFold, "%d are given back and %d are to be, the payment says %d and %d", done, pending, p.Refunded, p.RefundPending))
		}
	}
}

// complete is the transaction that writes a definite outcome.
func (w *system) complete(call int, fence int32, o payment.Outcome) {
	c := w.calls[call]
	if w.fence && c.fence != fence {
		return
	}
	w.calls = slices.Clone(w.calls)
	w.calls[call].due, w.calls[call].inDoubt = false, false
	locked := w.locked(w.paymentAt(c.Payment.ID))
	switch {
	case c.Operation != payment.Refund:
		w.writePayments(w.resolve(locked, c.Operation, o, modelRecorder()))
		return
	case c.Subject == c.Payment.ID:
		w.writePayments(payment.BeginRefundAll(locked, modelRecorder()))
		return
	}
	r := *w.refunded[w.refundAt(c.Subject)].Refund
	w.writePayments(w.refund(locked, &r, 0, o, modelRecorder()))
}

func (w *system) postpone(call int, code errcode.Code) {
	w.calls = slices.Clone(w.calls)
	w.calls[call].lastCode, w.calls[call].inDoubt = string(code), true
}

// The provider.

// account is what a payment has at the provider.
func (w *system) account(of string) (at pay.Standing) {
	for _, op := range w.provider {
		if op.payment == of && op.code == "" {
			at = at.Add(string(op.kind), order.Money{Amount: op.amount, Currency: "EUR"})
		}
	}
	return at
}

func (w *system) accountOf(i int) pay.Standing {
	return w.account(w.payments[i].ID.Format(order.PrefixPayment))
}

// stands tells whether it is held or charged.
func stands(at pay.Standing) bool { return at.Held() > 0 || at.Charged() > 0 }

// known is the outcome of a key, if it has one.
func (w *system) known(key string) (payment.Outcome, bool) {
	for _, op := range w.provider {
		if op.key == key {
			return payment.Outcome{Code: op.code, Reference: "ref"}, true
		}
	}
	return payment.Outcome{}, false
}

// record gives a key its outcome.
func (w *system) record(r request, code errcode.Code) payment.Outcome {
	if at := w.account(r.payment); code != errcode.PAY003 && refuses(at, r) {
		if !w.swept(r.payment) {
			w.fail(breaks(ruleProvider, "%s of %d of %+v", r.name, r.amount, at))
		}
		code = errcode.PAY006
	}
	w.provider = append(slices.Clone(w.provider), operationRow{r, code})
	slices.SortFunc(w.provider, func(a, b operationRow) int { return cmp.Compare(a.name, b.name) })
	w.judgeCharges()
	if o := w.order(); r.kind == payment.Capture && code == "" &&
		(o.CancelRequestedAt != nil || pick(w.reservation).Status != inventory.StatusConfirmed) {
		w.fail(breaks(ruleCapture, "a cancel is recorded: %t, the stock is %s", o.CancelRequestedAt != nil, pick(w.reservation).Status))
	}
	return payment.Outcome{Code: code, Reference: "ref"}
}

// refuses tells whether the payment's state does not allow the request.
func refuses(at pay.Standing, r request) bool {
	switch r.kind {
	case payment.Authorize:
		return at.Authorized.Amount > 0
	case payment.Refund:
		return r.amount > at.Charged()
	case payment.Capture, payment.Void:
	}
	return at.Held() == 0
}

// swept tells whether a sweep takes or took something of the payment back: then others may come too late.
func (w *system) swept(of string) bool {
	return w.sweeping != nil && w.sweeping.decided.payment == of ||
		slices.ContainsFunc(w.provider, func(op operationRow) bool { return op.payment == of && strings.HasPrefix(op.name, "sweep") })
}

func (w *system) judgeCharges() {
	standing := 0
	for i := range w.payments {
		if stands(w.accountOf(i)) {
			standing++
		}
	}
	if standing > 1 {
		w.fail(breaks(ruleCharge, "%d payments are held or charged", standing))
	}
}
