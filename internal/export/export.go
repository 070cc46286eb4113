// Package export writes down what is kept of a customer, in the forms of the contract. It only reads. docs/privacy.md says what it leaves
// out.
package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/exportdb"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/internal/view"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

const pageSize = 100 // orders that are listed at a time

// Customer says of whom.
type Customer struct {
	order.Owner
	AccountName string
	CustomerRef string
}

// Order is an order with all that belongs to it. docs/privacy.md describes it.
type Order struct {
	Order            api.Order         `json:"order"` // with its shipping address
	Events           []Event           `json:"events"`
	Saga             []Step            `json:"saga"`
	Payments         []json.RawMessage `json:"payments"`
	Refunds          []json.RawMessage `json:"refunds"`
	Shipments        []json.RawMessage `json:"shipments"`
	ResourceEvents   []Event           `json:"resource_events"` // of its payments, refunds and shipments
	CouponRedemption *Redemption       `json:"coupon_redemption"`
	IdempotencyKeys  []Result          `json:"idempotency_keys"`
}

// Event is the contract's event, its data in their present form.
type Event struct {
	api.EventBase

	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// Step is a step of the order's saga.
type Step struct {
	Name       string        `json:"name"`
	Attempt    int32         `json:"attempt"`
	Status     string        `json:"status"`
	Code       string        `json:"code"` // of a failed step
	StartedAt  *rfc3339.Time `json:"started_at"`
	FinishedAt *rfc3339.Time `json:"finished_at"`
}

// Redemption says that a coupon counts the order as a use by the customer.
type Redemption struct {
	Code        string       `json:"code"`
	CustomerRef string       `json:"customer_ref"`
	CreatedAt   rfc3339.Time `json:"created_at"`
}

// Result is what a repetition under an idempotency key is answered with.
type Result struct {
	Operation   string          `json:"operation"`
	Key         string          `json:"key"`
	Status      int32           `json:"status"`
	ContentType string          `json:"content_type"`
	ETag        string          `json:"etag"`
	Location    string          `json:"location"`
	Body        json.RawMessage `json:"body"`
	CreatedAt   rfc3339.Time    `json:"created_at"`
}

// reader reads in one snapshot.
type reader struct {
	*exportdb.Queries
	Customer
}

// Write writes the export of a customer to out as one JSON object, and returns how many orders it has. It reads one snapshot, and holds one
// order at a time.
func Write(ctx context.Context, pool *pgxpool.Pool, out io.Writer, c Customer) (orders int, err error) {
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		r := reader{exportdb.New(tx), c}
		begin, err := r.BeginExport(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		head, err := json.Marshal(map[string]any{
			"account": c.AccountName, "mode": c.Mode, "customer_ref": c.CustomerRef, "exported_at": rfc3339.New(begin.At),
		})
		if err != nil {
			return err
		}
		if _, err = fmt.Fprintf(out, "%s,\"orders\":[", head[:len(head)-1]); err != nil {
			return err
		}
		if orders, err = r.writeOrders(ctx, out); err != nil {
			return err
		}
		_, err = io.WriteString(out, "\n]}\n")
		return err
	})
	return orders, err
}

// writeOrders writes all orders, the oldest first, and returns how many.
func (r reader) writeOrders(ctx context.Context, out io.Writer) (n int, err error) {
	for after, more := (uuid.UUID{}), true; more; {
		rows, err := r.ExportOrders(ctx, exportdb.ExportOrdersParams{
			CustomerRef: r.CustomerRef, Account: r.Account, Mode: r.Mode, After: after, Page: pageSize,
		})
		if err != nil {
			return n, fmt.Errorf("read orders: %w", err)
		}
		for _, row := range rows {
			after = row.ID
			o, err := r.order(ctx, row)
			if err != nil {
				return n, fmt.Errorf("%s: %w", order.ID(row.ID).Format(order.PrefixOrder), err)
			}
			b, err := json.Marshal(o)
			if err != nil {
				return n, err
			}
			separator := ",\n"
			if n == 0 {
				separator = "\n"
			}
			if _, err = fmt.Fprintf(out, "%s%s", separator, b); err != nil {
				return n, err
			}
			n++
		}
		more = len(rows) == pageSize
	}
	return n, nil
}

// order reads one order with all that belongs to it.
func (r reader) order(ctx context.Context, row exportdb.ExportOrdersRow) (o Order, err error) {
	state, err := order.Restore(order.ID(row.ID), row.Version, row.HeadHash, row.State)
	if err != nil {
		return o, err
	}
	if o.Order, err = view.Order(state, row.Address); err != nil {
		return o, err
	}
	o.Events, o.Saga, o.IdempotencyKeys, o.ResourceEvents = []Event{}, []Step{}, []Result{}, []Event{}
	o.Payments, o.Refunds, o.Shipments = []json.RawMessage{}, []json.RawMessage{}, []json.RawMessage{}
	for _, add := range []func(context.Context, uuid.UUID, *Order) error{
		r.addEvents, r.addSteps, r.addPayments, r.addRedemption, r.addResults,
	} {
		if err = add(ctx, row.ID, &o); err != nil {
			return o, err
		}
	}
	return o, nil
}

// addEvents adds the order's events, and the shipments that they name.
func (r reader) addEvents(ctx context.Context, id uuid.UUID, o *Order) error {
	rows, err := r.EventsOfOrder(ctx, exportdb.EventsOfOrderParams{Account: r.Account, Mode: r.Mode, OrderID: id})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	for _, row := range rows {
		data, schema, err := order.Event{Type: row.Type, Version: row.Version, Schema: row.SchemaVersion, Payload: []byte(row.Payload)}.Current()
		if err != nil {
			return err
		}
		o.Events = append(o.Events, Event{Type: row.Type, Data: data, EventBase: api.EventBase{
			ID: order.ID(row.ID).Format(order.PrefixEvent), Sequence: row.Version, Resource: o.Order.ID, SchemaVersion: schema,
			CreatedAt: rfc3339.New(row.CreatedAt), Cause: api.EventCause{TraceID: row.TraceID, Operation: row.Operation, Actor: row.Actor},
		}})
		if row.Type == "order.shipped" {
			var shipped order.Shipped
			if err = json.Unmarshal(data, &shipped); err != nil {
				return err
			}
			if err = r.addShipment(ctx, shipped.ShipmentID, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r reader) addShipment(ctx context.Context, name string, o *Order) error {
	id, ok := order.Parse(order.PrefixShipment, name)
	if !ok {
		return fmt.Errorf("%q is the id of no shipment", name)
	}
	row, err := r.GetShipment(ctx, exportdb.GetShipmentParams{Account: r.Account, Mode: r.Mode, ID: uuid.UUID(id)})
	if err != nil {
		return fmt.Errorf("read shipment: %w", err)
	}
	s := order.Shipment{
		ID: id, Version: row.Version, OrderID: order.ID(row.OrderID), Status: order.ShipmentStatus(row.Status), CreatedAt: rfc3339.New(row.CreatedAt),
		UpdatedAt: rfc3339.New(row.UpdatedAt), DeliveredAt: rfc3339.Ptr(row.DeliveredAt),
	}
	if err = json.Unmarshal(row.Lines, &s.Lines); err == nil && row.Tracking != nil {
		err = json.Unmarshal(row.Tracking, &s.Tracking)
	}
	if err != nil {
		return fmt.Errorf("shipment %s: %w", name, err)
	}
	body, err := view.ShipmentBody(&s)
	o.Shipments = append(o.Shipments, body.Bytes)
	return errors.Join(err, r.addResourceEvents(ctx, order.KindShipment, name, o))
}

func (r reader) addSteps(ctx context.Context, id uuid.UUID, o *Order) error {
	rows, err := r.StepsOfOrder(ctx, exportdb.StepsOfOrderParams{Account: r.Account, Mode: r.Mode, OrderID: id})
	for _, row := range rows {
		o.Saga = append(o.Saga, Step{row.Step, row.Attempt, row.Status, row.Code, rfc3339.Ptr(row.StartedAt), rfc3339.Ptr(row.FinishedAt)})
	}
	return err
}

// addPayments adds the order's payments with their refunds, and the events of both.
func (r reader) addPayments(ctx context.Context, id uuid.UUID, o *Order) error {
	payments, err := r.PaymentsOfOrder(ctx, exportdb.PaymentsOfOrderParams{OrderID: id, Account: r.Account, Mode: r.Mode})
	if err != nil {
		return fmt.Errorf("read payments: %w", err)
	}
	for _, row := range payments {
		p := pay.Payment{
			Ref: order.RefOf(row.Account, row.Mode, row.ID), OrderID: order.ID(row.OrderID), Attempt: row.Attempt,
			Amount: order.Money{Amount: row.Amount, Currency: row.Currency}, Status: pay.Status(row.Status), FailureCode: row.FailureCode,
			DeclineReason: row.DeclineReason, Refunded: row.Refunded, Head: order.Head{Version: row.Version}, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
		}
		body, err := view.PaymentBody(&p)
		if err != nil {
			return err
		}
		o.Payments = append(o.Payments, body.Bytes)
		if err = r.addResourceEvents(ctx, order.KindPayment, p.ID.Format(order.PrefixPayment), o); err != nil {
			return err
		}
		if err = r.addRefunds(ctx, row.ID, o); err != nil {
			return err
		}
	}
	return nil
}

func (r reader) addRefunds(ctx context.Context, payment uuid.UUID, o *Order) error {
	refunds, err := r.RefundsOfPayment(ctx, exportdb.RefundsOfPaymentParams{PaymentID: payment, Account: r.Account, Mode: r.Mode})
	if err != nil {
		return fmt.Errorf("read refunds: %w", err)
	}
	for _, row := range refunds {
		f := pay.Refund{
			Ref: order.RefOf(row.Account, row.Mode, row.ID), PaymentID: order.ID(row.PaymentID), OrderID: order.ID(row.OrderID),
			Amount: order.Money{Amount: row.Amount, Currency: row.Currency}, Reason: row.Reason, Status: pay.RefundStatus(row.Status),
			FailureCode: row.FailureCode, DeclineReason: row.DeclineReason, Head: order.Head{Version: row.Version}, CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
		}
		body, err := view.RefundBody(&f)
		if err != nil {
			return err
		}
		o.Refunds = append(o.Refunds, body.Bytes)
		if err = r.addResourceEvents(ctx, order.KindRefund, f.ID.Format(order.PrefixRefund), o); err != nil {
			return err
		}
	}
	return nil
}

func (r reader) addResourceEvents(ctx context.Context, kind, resource string, o *Order) error {
	rows, err := r.EventsOfResource(ctx, exportdb.EventsOfResourceParams{Account: r.Account, Mode: r.Mode, Kind: kind, Resource: resource})
	for _, row := range rows {
		o.ResourceEvents = append(o.ResourceEvents, Event{Type: row.Type, Data: json.RawMessage(row.Payload), EventBase: api.EventBase{
			ID: order.ID(row.ID).Format(order.PrefixEvent), Sequence: row.Sequence, Resource: resource, SchemaVersion: row.SchemaVersion,
			CreatedAt: rfc3339.New(row.CreatedAt), Cause: api.EventCause{TraceID: row.TraceID, Operation: row.Operation, Actor: row.Actor},
		}})
	}
	return err
}

func (r reader) addRedemption(ctx context.Context, id uuid.UUID, o *Order) error {
	rows, err := r.GetRedemption(ctx, exportdb.GetRedemptionParams{Account: r.Account, Mode: r.Mode, OrderID: id})
	for _, row := range rows { // one at most
		o.CouponRedemption = &Redemption{row.Code, row.CustomerRef, rfc3339.New(row.CreatedAt)}
	}
	return err
}

func (r reader) addResults(ctx context.Context, id uuid.UUID, o *Order) error {
	rows, err := r.ExportResults(ctx, exportdb.ExportResultsParams{OrderID: id, Account: r.Account, Mode: r.Mode})
	for _, row := range rows {
		o.IdempotencyKeys = append(o.IdempotencyKeys, Result{
			row.Operation, row.Key, row.Status, row.ContentType, row.Etag, row.Location, row.Body, rfc3339.New(row.CreatedAt),
		})
	}
	return err
}
