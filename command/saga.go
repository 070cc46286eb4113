package command

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/command/payment"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/ordersdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// TopicOrders carries a Notice for each event of an order, in the order of its versions.
const TopicOrders = "orders"

// Notice tells that an order has a new version.
type Notice struct {
	Owner   order.Owner `json:"owner"`
	OrderID string      `json:"order_id"`
	Type    string      `json:"type"`
	Version int64       `json:"version"`
	Rev     int64       `json:"rev"`
}

// The steps of a saga. The first four go forward, the pivot is confirm_stock; the last three compensate.
const (
	stepReserve = "reserve_stock"
	stepAuth    = string(payment.Authorize)
	stepConfirm = "confirm_stock"
	stepCapture = string(payment.Capture)
	stepVoid    = string(payment.Void)
	stepRefund  = string(payment.Refund)
	stepRelease = "cancel_reservation"
)

// What a step's status may be. A running one is in doubt after a try that had no answer.
const (
	statusPending = "pending"
	statusRunning = "running"
	statusInDoubt = "in_doubt" // set by payment
	statusDone    = "done"
	statusFailed  = "failed"
	statusSkipped = "skipped"
)

// step is one row of saga_steps, as far as the saga writes it.
type step struct {
	name     string
	attempt  int32
	position int32
	status   string
	tries    int32
	code     string
	input    string
	trace    string
	started  time.Time
	finished time.Time
	dirty    bool
}

func (st *step) set(status, code string) { st.status, st.code, st.dirty = status, code, true }

// steps of one order, in the order they were planned. There is at most one of a name for now: attempt 1.
type steps []*step

// planned are the steps of a new order: the stock alone if nobody pays yet.
func planned(o *order.Order, methodToken string) steps {
	names := []string{stepReserve}
	if o.WithPayment {
		names = append(names, stepAuth, stepConfirm, stepCapture)
	}
	var s steps
	for _, name := range names {
		s.plan(name)
	}
	if auth := s.get(stepAuth); auth != nil {
		auth.input = methodToken
	}
	return s
}

func (s *steps) plan(name string) *step {
	st := &step{name: name, attempt: 1, position: int32(len(*s) + 1), status: statusPending, dirty: true}
	*s = append(*s, st)
	return st
}

func (s steps) get(name string) *step {
	for _, st := range s {
		if st.name == name {
			return st
		}
	}
	return nil
}

func (s steps) is(name, status string) bool {
	st := s.get(name)
	return st != nil && st.status == status
}

// underWay tells whether the step was started and is not definite.
func (s steps) underWay(name string) bool {
	return s.is(name, statusRunning) || s.is(name, statusInDoubt)
}

// forward are the steps that lead to a confirmed order; the others take them back.
func (st *step) forward() bool {
	return st.name == stepReserve || st.name == stepAuth || st.name == stepConfirm || st.name == stepCapture
}

func (s steps) write(owner order.Owner, id uuid.UUID, p *ordersdb.PutStepsParams) {
	for _, st := range s {
		if !st.dirty {
			continue
		}
		p.Accounts, p.Modes, p.OrderIds = append(p.Accounts, owner.Account), append(p.Modes, owner.Mode), append(p.OrderIds, id)
		p.Steps, p.Attempts, p.Positions = append(p.Steps, st.name), append(p.Attempts, st.attempt), append(p.Positions, st.position)
		p.Statuses, p.Tries, p.LastCodes = append(p.Statuses, st.status), append(p.Tries, st.tries), append(p.LastCodes, st.code)
		p.Inputs, p.TraceIds = append(p.Inputs, st.input), append(p.TraceIds, st.trace)
		p.StartedAts, p.FinishedAts = append(p.StartedAts, st.started), append(p.FinishedAts, st.finished)
	}
}

// advance decides what an order's saga does next and puts it into the change: it looks at nothing but the order and its steps,
// so that it can be asked again after every fact.
//
// While a step is under way it waits. Forward, it starts the first step that is planned; when all are done the order is
// confirmed. If the client wants out, or a step failed, what was planned is skipped and what was done is taken back, last
// first: a capture is refunded, an authorization voided, a reservation cancelled (a confirmed one is given back); then the order
// is cancelled on the client's wish, else rejected: with what was refused, or because its reservation ran out.
func advance(ch *change, rec order.Recorder) {
	o, s := ch.order, ch.steps
	if o.Status.Final() {
		return
	}
	failed := slices.IndexFunc(s, func(st *step) bool { return st.status == statusFailed && st.forward() })
	back := o.CancelRequestedAt != nil || failed >= 0
	if back {
		for _, st := range s {
			if st.status == statusPending && st.forward() {
				st.set(statusSkipped, "")
				st.finished = rec.Now
			}
		}
	}
	for _, st := range s {
		if s.underWay(st.name) {
			return
		}
	}
	if !back {
		if next := slices.IndexFunc(s, func(st *step) bool { return st.status == statusPending }); next >= 0 {
			start(ch, s[next], rec)
		} else if o.WithPayment && o.Status != order.StatusConfirmed {
			ch.events = append(ch.events, o.Record(rec, order.Confirmed{}))
		}
		return
	}
	undo := ""
	switch {
	case s.is(stepCapture, statusDone):
		if s.get(stepRefund) == nil {
			undo = stepRefund
		}
	case s.is(stepAuth, statusDone):
		if s.get(stepVoid) == nil {
			undo = stepVoid
		}
	}
	if undo == "" && s.is(stepReserve, statusDone) && s.get(stepRelease) == nil {
		undo = stepRelease
	}
	if undo != "" {
		start(ch, ch.steps.plan(undo), rec)
		return
	}
	if o.CancelRequestedAt != nil {
		ch.events = append(ch.events, o.Record(rec, order.Cancelled{}))
		return
	}
	why := order.Rejection{Code: s[failed].code}
	if o.Failure != nil { // what was refused says more than a reservation that then ran out
		why = *o.Failure
	}
	ch.events = append(ch.events, o.Record(rec, order.Rejected{Rejection: why}))
}

// start sends a step's command.
func start(ch *change, st *step, rec order.Recorder) {
	o := ch.order
	st.set(statusRunning, "")
	st.started, st.trace = rec.Now, rec.Cause.TraceID
	out := bus.Outgoing{Key: o.ID.Format(order.PrefixOrder), Shard: o.ID.Shard(), TraceID: rec.Cause.TraceID, ID: uuid.UUID(rec.NewID())}
	var body any
	switch st.name {
	case stepReserve, stepConfirm, stepRelease:
		st.tries = 1
		cmd := inventory.Command{Owner: ch.owner, OrderID: o.ID, Attempt: st.attempt}
		switch st.name {
		case stepReserve:
			cmd.Kind = inventory.Reserve
			for _, l := range o.Lines {
				cmd.Lines = append(cmd.Lines, inventory.Line{SKU: l.SKU, Quantity: l.Quantity})
			}
		case stepConfirm:
			cmd.Kind = inventory.Confirm
		case stepRelease:
			cmd.Kind = inventory.Cancel
		}
		out.Topic, body = inventory.TopicCommands, cmd
	default:
		out.Topic = payment.TopicCommands
		body = payment.Command{
			Operation: payment.Operation(st.name), Owner: ch.owner, OrderID: o.ID, Attempt: st.attempt, Amount: o.Total, MethodToken: st.input,
		}
		st.input = "" // the payment context has it from here on
	}
	payload, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("command: %s cannot be encoded: %v", st.name, err)) // plain structs always can
	}
	out.Payload = payload
	ch.sends = append(ch.sends, out)
}

// orderRef names an order of an account.
type orderRef struct {
	owner order.Owner
	id    order.ID
}

// lockOrders locks orders in the order of their ids and reads them with their steps. Orders that do not exist are left out.
func lockOrders(ctx context.Context, q *ordersdb.Queries, refs []orderRef) (map[orderRef]*change, error) {
	var p ordersdb.LockOrdersParams
	for _, r := range refs {
		p.Accounts, p.Modes, p.Ids = append(p.Accounts, r.owner.Account), append(p.Modes, r.owner.Mode), append(p.Ids, pgID(r.id))
	}
	rows, err := q.LockOrders(ctx, p)
	if err != nil {
		return nil, err
	}
	found := make(map[orderRef]*change, len(rows))
	for _, row := range rows {
		o, err := order.Restore(order.ID(row.ID), row.Version, row.HeadHash, row.State)
		if err != nil {
			return nil, err
		}
		owner := order.Owner{Account: row.Account, Mode: row.Mode}
		found[orderRef{owner, o.ID}] = &change{owner: owner, order: o, decided: o.Version, rev: row.Rev, address: row.Address}
	}
	stepRows, err := q.GetSteps(ctx, ordersdb.GetStepsParams{Accounts: p.Accounts, Modes: p.Modes, OrderIds: p.Ids})
	if err != nil {
		return nil, err
	}
	for _, r := range stepRows {
		st := &step{
			name: r.Step, attempt: r.Attempt, position: r.Position, status: r.Status, tries: r.Tries, code: r.LastCode, input: r.Input, trace: r.TraceID,
		}
		if r.StartedAt != nil {
			st.started = *r.StartedAt
		}
		if r.FinishedAt != nil {
			st.finished = *r.FinishedAt
		}
		if ch, ok := found[orderRef{order.Owner{Account: r.Account, Mode: r.Mode}, order.ID(r.OrderID)}]; ok {
			ch.steps = append(ch.steps, st)
		}
	}
	return found, nil
}

// InventoryReplied takes inventory's replies: each step's outcome becomes events of its order, and the saga goes on; all in the
// given transaction. A reply to a step that is already definite changes nothing.
func (c *Commands) InventoryReplied(ctx context.Context, tx pgx.Tx, msgs []bus.Message) (func(), error) {
	return replied(ctx, c, tx, msgs, func(r inventory.Reply) orderRef { return orderRef{r.Owner, r.OrderID} }, inventoryFact)
}

// PaymentReplied does the same for payment's replies.
func (c *Commands) PaymentReplied(ctx context.Context, tx pgx.Tx, msgs []bus.Message) (func(), error) {
	return replied(ctx, c, tx, msgs, func(r payment.Reply) orderRef { return orderRef{r.Owner, r.OrderID} }, paymentFact)
}

// replied handles replies of either context: no two of one order.
func replied[R any](ctx context.Context, c *Commands, tx pgx.Tx, msgs []bus.Message, about func(R) orderRef, fact func(*change, R, order.Recorder) bool) (func(), error) {
	replies, refs := make([]R, len(msgs)), make([]orderRef, len(msgs))
	for i, m := range msgs {
		if err := json.Unmarshal(m.Payload, &replies[i]); err != nil {
			return nil, fmt.Errorf("decode reply: %w", err)
		}
		refs[i] = about(replies[i])
	}
	locked, err := lockOrders(ctx, ordersdb.New(tx), refs)
	if err != nil {
		return nil, fmt.Errorf("lock orders: %w", err)
	}
	b := &batch{}
	for i, m := range msgs {
		ch, ok := locked[refs[i]]
		if !ok {
			return nil, fmt.Errorf("%s: no such order", refs[i].id.Format(order.PrefixOrder))
		}
		rec := c.recorder(Envelope{Owner: ch.owner, Operation: m.Topic, Actor: "saga"})
		rec.Cause.TraceID = m.TraceID
		if fact(ch, replies[i], rec) {
			advance(ch, rec)
			b.add(ch)
		}
	}
	if err = b.write(ctx, tx); err != nil {
		return nil, err
	}
	return func() {
		b.position(ctx, c.cfg.Pool)
		b.published(ctx, c)
	}, nil
}

// finish makes a step definite if it is under way and tells whether it was.
func (ch *change) finish(name, code string, rec order.Recorder) bool {
	st := ch.steps.get(name)
	if st == nil || !ch.steps.underWay(name) {
		return false
	}
	st.set(statusDone, "")
	if code != "" {
		st.set(statusFailed, code)
	}
	st.finished = rec.Now
	return true
}

func (ch *change) record(rec order.Recorder, d order.Data) {
	ch.events = append(ch.events, ch.order.Record(rec, d))
}

// inventoryFact records what inventory did; false: it was known.
func inventoryFact(ch *change, r inventory.Reply, rec order.Recorder) bool {
	switch r.Kind {
	case inventory.Reserved:
		if !ch.finish(stepReserve, "", rec) {
			return false
		}
		ch.record(rec, order.StockReserved{ExpiresAt: rfc3339.New(r.ExpiresAt)})
	case inventory.ReserveRefused:
		if !ch.finish(stepReserve, string(errcode.INV002), rec) {
			return false
		}
		ch.record(rec, order.StockRejected{SKUs: r.SKUs})
	case inventory.Confirmed:
		return ch.finish(stepConfirm, "", rec)
	case inventory.ConfirmRefused:
		return ch.finish(stepConfirm, string(errcode.INV003), rec)
	case inventory.Cancelled:
		return ch.finish(stepRelease, "", rec)
	case inventory.ReservationEnded:
		st := ch.steps.get(stepReserve)
		if st == nil || st.status != statusDone || ch.steps.is(stepConfirm, statusDone) {
			return false
		}
		st.set(statusFailed, string(errcode.INV003))
	default:
		panic(fmt.Sprintf("command: unknown reply %q", r.Kind)) // parks the message
	}
	return true
}

// paymentFact records what payment did; false: it was known.
func paymentFact(ch *change, r payment.Reply, rec order.Recorder) bool {
	if !ch.finish(string(r.Operation), r.Code, rec) {
		return false
	}
	switch {
	case r.Code != "" && (r.Operation == payment.Authorize || r.Operation == payment.Capture):
		ch.record(rec, order.PaymentFailed{Code: r.Code, DeclineReason: order.Text(r.DeclineReason)})
	case r.Operation == payment.Authorize:
		ch.record(rec, order.Updated{PaymentStatus: order.PaymentStatusAuthorized})
	case r.Operation == payment.Capture:
		ch.record(rec, order.Paid{Amount: ch.order.Total})
	case r.Operation == payment.Void:
		if ch.order.PaymentStatus == order.PaymentStatusAuthorized { // else a refused capture has said so
			ch.record(rec, order.Updated{PaymentStatus: order.PaymentStatusNone})
		}
	case r.Operation == payment.Refund:
		ch.record(rec, order.Refunded{Amount: ch.order.Total})
	}
	return true
}
