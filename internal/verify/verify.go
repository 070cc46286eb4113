// Package verify looks whether everything that the database and the payment provider have about orders fits together. It only reads.
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
	pageSize = 500 // rows; of orders with all their events some MB
	maxShown = 10  // violations of an invariant that the report describes
)

// Config is what Run needs.
type Config struct {
	Pool        *pgxpool.Pool       // two connections at least, to the primary
	ProviderURL string              // empty: the invariant provider is not checked
	Consumers   map[string][]string // the names of the consumers, by topic
	RelayPage   time.Duration       // a relay deletes handled messages within this time; 0: 10 s
	// Progress is called after each page with the invariant and how much it has looked at. May be nil.
	Progress func(invariant string, lookedAt int64)
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
// no violation: each check says what may be in flight.
type invariant struct {
	name    string
	promise string
	check   func(*scan, context.Context) error
}

// invariants are checked in this order. A new one is one entry.
var invariants = []invariant{
	{"events", "each order's events are complete, unchanged and chained, and no two have one id", (*scan).checkEvents},
	{"orders", "each order's row is the fold of its events, and no events are without an order", (*scan).checkOrders},
	{"stock", "the reserved pieces of a sku are those of held reservations, and no more than there are", (*scan).checkStock},
	{"reservations", "each order has the reservation that its saga says, with its lines; an order that ended without a sale holds nothing", (*scan).checkReservations},
	{"payments", "each order is charged its total once, or nothing, as its payment status says", (*scan).checkPayments},
	{"provider", "the provider's ledger and our payment calls say the same", (*scan).checkProvider},
	{"idempotency", "each order of the last 48 h was placed under exactly one key, and each such key has its order", (*scan).checkIdempotency},
	{"coupons", "a coupon's count is that of the orders that use it, and those are the orders with the coupon that did not end without a sale", (*scan).checkCoupons},
	{"references", "each order's reference is kept for it, and no other is", (*scan).checkReferences},
	{"messages", "each event of the last 7 days was published or waits in the outbox, and what all consumers handled leaves the outbox", (*scan).checkMessages},
	{"saga", "each order's steps fit its status, and a step in flight has a message or call that moves it on", (*scan).checkSaga},
}

// scan is the state of one Run.
type scan struct {
	Config
	*verifydb.Queries // in the snapshot

	begin    time.Time
	ledger   *ledger     // nil without a provider
	result   *Result     // of the invariant that is checked
	suspects []Violation // of it: see suspect
}

// Run checks all invariants on one snapshot: in a REPEATABLE READ, READ ONLY transaction. It reads large tables by pages. The error is
// that it could not look.
func Run(ctx context.Context, c Config) (Report, error) {
	s := &scan{Config: c}
	s.RelayPage = cmp.Or(c.RelayPage, 10*time.Second)
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
		for _, i := range invariants {
			s.result = &Result{Name: i.name, Promise: i.promise, First: []Violation{}}
			if err = i.check(s, ctx); err != nil {
				return fmt.Errorf("check %s: %w", i.name, err)
			}
			report.Invariants = append(report.Invariants, *s.result)
		}
		return nil
	})
	return report, err
}

// looked counts what the invariant has looked at.
func (s *scan) looked(n int) {
	s.result.LookedAt += int64(n)
	if s.Progress != nil {
		s.Progress(s.result.Name, s.result.LookedAt)
	}
}

// violationf reports one violation.
func (s *scan) violationf(id, format string, args ...any) {
	s.result.Violations++
	if len(s.result.First) < maxShown {
		s.result.First = append(s.result.First, Violation{id, fmt.Sprintf(format, args...)})
	}
}

// unshown counts the violations of a query that found total of them and returned the first.
func (s *scan) unshown(total int64, returned int) {
	s.result.Violations += max(0, total-int64(returned))
}

func orderName(id [16]byte) string { return order.ID(id).Format(order.PrefixOrder) }

// pages reads a table in pages. read returns the rows that follow a row; first is before all of them.
func pages[R any](first R, read func(after R) ([]R, error), each func([]R) error) error {
	for after := first; ; {
		rows, err := read(after)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err = each(rows); err != nil || len(rows) < pageSize {
			return err
		}
		after = rows[len(rows)-1]
	}
}

// orderPage is a page of orders with their states.
type orderPage struct {
	rows   []verifydb.OrderPageRow
	states []*order.Order // nil: the state cannot be read, which the invariant orders reports
	ids    verifydb.EventsOfParams
}

// all calls each with every order of the page that has a readable state.
func (p orderPage) all(each func(ref order.Ref, o *order.Order)) {
	for i, r := range p.rows {
		if p.states[i] != nil {
			each(order.RefOf(r.Account, r.Mode, r.ID), p.states[i])
		}
	}
}

// orders walks over all orders.
func (s *scan) orders(ctx context.Context, each func(orderPage) error) error {
	return pages(verifydb.OrderPageRow{}, func(after verifydb.OrderPageRow) ([]verifydb.OrderPageRow, error) {
		return s.OrderPage(ctx, verifydb.OrderPageParams{AfterAccount: after.Account, AfterMode: after.Mode, AfterID: after.ID, PageSize: pageSize})
	}, func(rows []verifydb.OrderPageRow) error {
		p := orderPage{rows: rows, states: make([]*order.Order, len(rows))}
		for i, r := range rows {
			p.ids.Accounts, p.ids.Modes, p.ids.OrderIds = append(p.ids.Accounts, r.Account), append(p.ids.Modes, r.Mode), append(p.ids.OrderIds, r.ID)
			if o, err := order.Restore(order.ID(r.ID), r.Version, r.HeadHash, r.State); err == nil {
				p.states[i] = o
			}
		}
		err := each(p)
		s.looked(len(rows))
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
			s.unshown(o.Total, len(rows))
		}
	}
	return err
}
