// Package verify looks whether everything that the database and the payment provider have about orders and stock fits together. It only reads.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
)

const (
	pageSize    = 500              // rows
	maxShown    = 10               // violations of an invariant that the report describes
	outboxLimit = 30 * time.Second // /readyz calls an outbox that stands still for so long a fault
)

// Config is what Run needs.
type Config struct {
	Pool        *pgxpool.Pool       // two connections at least, to the primary
	ProviderURL string              // empty: the invariant provider is not checked
	Consumers   map[string][]string // the names of the consumers, by topic
	OutboxLimit time.Duration       // how long a message that all consumers handled may stay in the outbox; 0: 30 s
	PageSize    int32               // rows of a page; 0: 500
	Progress    func(Progress)      // is called at the beginning of each invariant and after each page. May be nil
}

// Progress says how far a Run is.
type Progress struct {
	Invariant  string
	Number     int // of the invariant, from 1
	Invariants int
	LookedAt   int64
	Expected   int64 // LookedAt at the end; 0: it is not known
}

// Report says what was looked at and what does not fit together.
type Report struct {
	At             time.Time `json:"at"` // of the snapshot
	Invariants     []Result  `json:"invariants"`
	ParkedMessages int64     `json:"parked_messages"` // no violation: an operator retries them
}

// Violations is their number over all invariants.
func (r Report) Violations() (n int64) {
	for _, result := range r.Invariants {
		n += result.Violations
	}
	return n
}

// Result is what became of one invariant.
type Result struct {
	Name       string      `json:"name"`
	Promise    string      `json:"promise"`
	NotChecked string      `json:"not_checked,omitempty"` // why it was not checked
	LookedAt   int64       `json:"looked_at"`             // rows, or ledger entries
	Violations int64       `json:"violations"`
	First      []Violation `json:"first"` // at most 10
}

// Violation is one thing that breaks an invariant.
type Violation struct {
	ID   string `json:"id"` // an order's, or a key, a sku, a message
	What string `json:"what"`
}

// invariant is a row of the table: a promise, and the check that reports what breaks it. A state that a running system passes through is
// no violation: each check says what may be in flight. A check holds a page at a time, however large the tables are.
type invariant struct {
	name    string
	promise string
	check   func(*scan, context.Context) error
}

// invariants are checked in this order. A new one is one entry.
var invariants = []invariant{
	{"events", "each order's events are complete, unchanged and chained, and no two events of anything have one id", (*scan).checkEvents},
	{"resource_events", "the events of each payment, refund, shipment and stock are complete, unchanged and chained", (*scan).checkResourceEvents},
	{"orders", "each order's row is the fold of its events, and no events are without an order", (*scan).checkOrders},
	{"resources", "each row of a payment, refund and shipment is the fold of its events, and no events are without a row", (*scan).checkResources},
	{"stock", "the pieces of a sku are its adjustments less what was sold; those reserved are those of held reservations", (*scan).checkStock},
	{"reservations", "each order has the reservation that its saga says, with its lines; an order that ended without a sale holds nothing", (*scan).checkReservations},
	{"payments", "each order is charged its total once, less its refunds, or nothing, as its payment status says", (*scan).checkPayments},
	{"shipments", "each order shipped what its shipments have, and its fulfillment status says so", (*scan).checkShipments},
	{"provider", "the provider's ledger and our payment calls say the same, and each call is there once", (*scan).checkProvider},
	{"idempotency", "what an operation made in the last 48 h has exactly one key, and each key what it made", (*scan).checkIdempotency},
	{"coupons", "a coupon's count is that of the orders that use it, and those are the orders with the coupon that did not end without a sale", (*scan).checkCoupons},
	{"references", "each order's reference is kept for it, and no other is", (*scan).checkReferences},
	{"messages", "each event of the last 7 days was published or waits in the outbox; what waits there is about an order, and leaves it once it was handled", (*scan).checkMessages},
	{"saga", "each order's steps fit its status, and a step in flight has a message or call that moves it on", (*scan).checkSaga},
}

// scan is the state of one Run.
type scan struct {
	Config
	*verifydb.Queries // in the snapshot

	begin    time.Time   // of the snapshot, by our clock
	ledger   *ledger     // nil without a provider
	result   *Result     // of the invariant that is checked
	progress Progress    // of it
	suspects []Violation // see suspect
}

// Run checks all invariants on one snapshot: in a REPEATABLE READ, READ ONLY transaction. The error is that it could not look.
func Run(ctx context.Context, c Config) (Report, error) {
	s := &scan{Config: c}
	s.OutboxLimit, s.PageSize = cmp.Or(c.OutboxLimit, outboxLimit), cmp.Or(c.PageSize, pageSize)
	var err error
	if c.ProviderURL != "" {
		if s.ledger, err = openLedger(ctx, c.ProviderURL); err != nil {
			return Report{}, err
		}
	}
	var report Report
	err = pgx.BeginTxFunc(ctx, c.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		s.Queries = verifydb.New(tx)
		snapshot, err := s.BeginSnapshot(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if snapshot.Standby {
			return errors.New("the server is a standby, which may be older than the provider's ledger")
		}
		s.begin, report.At = time.Now(), snapshot.At.UTC()
		if report.ParkedMessages, err = s.CountParked(ctx); err != nil {
			return fmt.Errorf("count parked messages: %w", err)
		}
		for n, i := range invariants {
			s.result = &Result{Name: i.name, Promise: i.promise, First: []Violation{}}
			s.progress = Progress{Invariant: i.name, Number: n + 1, Invariants: len(invariants)}
			s.lookedAt(0)
			if err = i.check(s, ctx); err != nil {
				return fmt.Errorf("check %s: %w", i.name, err)
			}
			report.Invariants = append(report.Invariants, *s.result)
		}
		return nil
	})
	return report, err
}

// lookedAt counts n rows, or ledger entries, that the invariant has looked at.
func (s *scan) lookedAt(n int) {
	s.result.LookedAt += int64(n)
	if s.progress.LookedAt = s.result.LookedAt; s.Progress != nil {
		s.Progress(s.progress)
	}
}

// expect tells Progress how much the invariant will look at. Without a Progress nothing is counted.
func (s *scan) expect(ctx context.Context, count func(context.Context) (int64, error)) error {
	if s.Progress == nil {
		return nil
	}
	n, err := count(ctx)
	s.progress.Expected += n
	return err
}

// violationf reports one violation.
func (s *scan) violationf(id, format string, args ...any) {
	s.result.Violations++
	if len(s.result.First) < maxShown {
		s.result.First = append(s.result.First, Violation{id, fmt.Sprintf(format, args...)})
	}
}

// addUnlisted counts the violations of a query that found total of them and listed the first.
func (s *scan) addUnlisted(total int64, listed int) {
	s.result.Violations += max(0, total-int64(listed))
}

func orderName(id [16]byte) string { return order.ID(id).Format(order.PrefixOrder) }

// pages reads a table in pages of a size. read returns the rows that follow a row; first is before all of them.
func pages[R any](size int32, first R, read func(after R) ([]R, error), each func([]R) error) error {
	for after := first; ; {
		rows, err := read(after)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err = each(rows); err != nil || len(rows) < int(size) {
			return err
		}
		after = rows[len(rows)-1]
	}
}

// orderPage is a page of orders with their states.
type orderPage struct {
	rows   []verifydb.OrderPageRow
	states []*order.Order // nil: the state cannot be read, which the invariant orders reports
	refs   orderRefs
}

// orderRefs are orders as the queries of a page take them.
type orderRefs verifydb.ExistingOrdersParams

func (r *orderRefs) add(ref order.Ref) {
	r.Accounts, r.Modes, r.OrderIds = append(r.Accounts, ref.Account), append(r.Modes, ref.Mode), append(r.OrderIds, uuid.UUID(ref.ID))
}

// each calls f with every order of the page that has a readable state.
func (p orderPage) each(f func(ref order.Ref, o *order.Order)) {
	for i, r := range p.rows {
		if p.states[i] != nil {
			f(order.RefOf(r.Account, r.Mode, r.ID), p.states[i])
		}
	}
}

// eachOrderPage walks over all orders.
func (s *scan) eachOrderPage(ctx context.Context, check func(orderPage) error) error {
	if err := s.expect(ctx, s.CountOrders); err != nil {
		return err
	}
	return pages(s.PageSize, verifydb.OrderPageRow{}, func(after verifydb.OrderPageRow) ([]verifydb.OrderPageRow, error) {
		return s.OrderPage(ctx, verifydb.OrderPageParams{AfterAccount: after.Account, AfterMode: after.Mode, AfterID: after.ID, PageSize: s.PageSize})
	}, func(rows []verifydb.OrderPageRow) error {
		p := orderPage{rows: rows, states: make([]*order.Order, len(rows))}
		for i, r := range rows {
			p.refs.add(order.RefOf(r.Account, r.Mode, r.ID))
			if o, err := order.Restore(order.ID(r.ID), r.Version, r.HeadHash, r.State); err == nil {
				p.states[i] = o
			}
		}
		err := check(p)
		s.lookedAt(len(rows))
		return err
	})
}

// group sorts rows by their orders.
func group[R any](rows []R, ref func(R) order.Ref) map[order.Ref][]R {
	groups := map[order.Ref][]R{}
	for _, r := range rows {
		groups[ref(r)] = append(groups[ref(r)], r)
	}
	return groups
}

// orphan is a row, or several of an order, without what they belong to.
type orphan struct {
	Account int32
	Mode    string
	OrderID uuid.UUID
	Total   int64 // of all orphans
}

// orphanRow is an orphan as each query returns it.
type orphanRow interface {
	~struct {
		Account int32
		Mode    string
		OrderID uuid.UUID
		Total   int64
	}
}

// orphans reports what a query found.
func orphans[R orphanRow](ctx context.Context, s *scan, what string, query func(context.Context, int32) ([]R, error)) error {
	rows, err := query(ctx, maxShown)
	for i, row := range rows {
		o := orphan(row)
		s.violationf(orderName(o.OrderID), "%s", what)
		if i == 0 {
			s.addUnlisted(o.Total, len(rows))
		}
	}
	return err
}
