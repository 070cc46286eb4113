package order

import (
	"maps"
	"slices"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Status is the state of an order in its life cycle.
type Status string

// The statuses of an order. Rejected, cancelled and completed are final.
const (
	StatusPending   Status = "pending"
	StatusReserved  Status = "reserved"
	StatusConfirmed Status = "confirmed"
	StatusCompleted Status = "completed"
	StatusRejected  Status = "rejected"
	StatusCancelled Status = "cancelled"
)

// phase divides a status where what can follow and what is allowed differ.
type phase string

const (
	phaseCancelling phase = "cancel requested"
	phaseShipped    phase = "shipped in part or whole"
)

// Command is a client's request to change an existing order.
type Command string

// The commands. Each has a cell in every row of the table below.
const (
	Cancel        Command = "cancel"
	Pay           Command = "pay"
	Ship          Command = "ship"
	PatchAddress  Command = "change address"
	PatchMetadata Command = "change metadata"
)

// allowed is the cell of a command that the status allows.
const allowed errcode.Code = ""

// cells of a row: allowed, or the refusal's code.
type cells map[Command]errcode.Code

// state is one row of the table.
type state struct {
	status   Status
	phase    phase
	next     []Status // the statuses that can follow; none: the status is final
	commands cells
}

// states is the one table of an order's life cycle. It decides, and the guide of orders shows it.
var states = []state{
	{StatusPending, "", []Status{StatusReserved, StatusRejected, StatusCancelled}, cells{Cancel: allowed, Pay: errcode.ORD002, Ship: errcode.SHP003, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusPending, phaseCancelling, []Status{StatusReserved, StatusCancelled}, cells{Cancel: allowed, Pay: errcode.ORD002, Ship: errcode.ORD002, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusReserved, "", []Status{StatusConfirmed, StatusRejected, StatusCancelled}, cells{Cancel: allowed, Pay: allowed, Ship: errcode.SHP003, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusReserved, phaseCancelling, []Status{StatusCancelled}, cells{Cancel: allowed, Pay: errcode.ORD002, Ship: errcode.ORD002, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusConfirmed, "", []Status{StatusCompleted, StatusCancelled}, cells{Cancel: allowed, Pay: errcode.PAY002, Ship: allowed, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusConfirmed, phaseCancelling, []Status{StatusCancelled}, cells{Cancel: allowed, Pay: errcode.PAY002, Ship: errcode.ORD002, PatchAddress: allowed, PatchMetadata: allowed}},
	{StatusConfirmed, phaseShipped, []Status{StatusCompleted}, cells{Cancel: errcode.ORD002, Pay: errcode.PAY002, Ship: allowed, PatchAddress: errcode.ORD002, PatchMetadata: allowed}},
	{StatusCompleted, "", nil, cells{Cancel: errcode.ORD002, Pay: errcode.PAY002, Ship: errcode.SHP002, PatchAddress: errcode.ORD002, PatchMetadata: allowed}},
	{StatusRejected, "", nil, cells{Cancel: errcode.ORD002, Pay: errcode.ORD002, Ship: errcode.SHP003, PatchAddress: errcode.ORD002, PatchMetadata: allowed}},
	{StatusCancelled, "", nil, cells{Cancel: errcode.ORD007, Pay: errcode.ORD002, Ship: errcode.ORD002, PatchAddress: errcode.ORD002, PatchMetadata: allowed}},
}

// row is the row of a status in a phase. A final status has no phases.
func (s Status) row(p phase) state {
	i := slices.IndexFunc(states, func(st state) bool { return st.status == s && (st.phase == p || len(st.next) == 0) })
	if i < 0 {
		return state{status: s}
	}
	return states[i]
}

// Final tells whether no status can follow.
func (s Status) Final() bool { return len(s.row("").next) == 0 }

func (o *Order) phase() phase {
	switch {
	case o.FulfillmentStatus != FulfillmentStatusUnfulfilled:
		return phaseShipped
	case o.CancelRequestedAt != nil:
		return phaseCancelling
	}
	return ""
}

// check refuses a command that the order's status does not allow: with the table's code, and with from and allowed if that is ORD_002.
func (o *Order) check(c Command) error {
	code, known := o.Status.row(o.phase()).commands[c]
	switch {
	case !known || code == errcode.ORD002:
		return o.notAllowed()
	case code == errcode.SHP002:
		return errNothingLeft()
	case code != allowed:
		return apierr.E(code)
	}
	return nil
}

// notAllowed is ORD_002 with where the order is and can go.
func (o *Order) notAllowed() error {
	return apierr.E(errcode.ORD002, apierr.Extra("from", o.Status), apierr.Extra("allowed", append([]Status{}, o.next()...)))
}

// next are the statuses that can follow: those of the table. But what was shipped in part and then refunded in full stays as it is, because
// the rest of it is not shipped any more.
func (o *Order) next() []Status {
	if o.PaymentStatus == PaymentStatusRefunded && o.FulfillmentStatus == FulfillmentStatusPartial {
		return nil
	}
	return o.Status.row(o.phase()).next
}

// CheckPay refuses a payment of the order. Refusals: those of the table; INV_003 if its reservation has expired; ORD_002 if it is to be
// cancelled or rejected; PAY_002 if a payment came with it or is under way. The saga's steps tell whether the reservation has expired and
// whether a step is in flight.
func (o *Order) CheckPay(expired, paying bool) error {
	err := o.check(Pay)
	expired = expired && err == nil && o.Failure == nil // else it is over, or will be, for a reason of its own
	switch {
	case expired, o.Rejection != nil && o.Rejection.Code == string(errcode.INV003):
		return apierr.E(errcode.INV003)
	case err != nil:
		return err
	case o.Failure != nil:
		return o.notAllowed()
	case o.WithPayment, paying:
		return apierr.E(errcode.PAY002)
	}
	return nil
}

// RequestCancel records that the client asks to cancel. A request that is already recorded is no event and no error. Refusals:
// those of the table, and ORD_009 while a capture is running and not yet definite.
func (o *Order) RequestCancel(rec Recorder, reason string, captureRunning bool) ([]Event, error) {
	if err := o.check(Cancel); err != nil {
		return nil, err
	}
	if o.CancelRequestedAt != nil {
		return nil, nil
	}
	if captureRunning {
		return nil, apierr.E(errcode.ORD009)
	}
	return []Event{o.Record(rec, CancelRequested{Reason: Text(reason)})}, nil
}

// CanBecome tells whether the table has the status among those that can follow the order's. Nothing checks the saga's events: they follow the
// table because its steps do.
func (o *Order) CanBecome(next Status) bool {
	return slices.Contains(o.next(), next)
}

// Update records that the metadata, if it is not nil, is replaced, and that the shipping address changes, if it does; what is equal is no
// change, and no change is no event. Refusals: those of the table.
func (o *Order) Update(rec Recorder, metadata map[string]string, addressChanges bool) ([]Event, error) {
	u := Updated{ShippingAddressChanged: addressChanges}
	if metadata != nil && !maps.Equal(metadata, o.Metadata) {
		if err := o.check(PatchMetadata); err != nil {
			return nil, err
		}
		u.Metadata = metadata
	}
	if addressChanges {
		if err := o.check(PatchAddress); err != nil {
			return nil, err
		}
	}
	if u.Metadata == nil && !addressChanges {
		return nil, nil
	}
	return []Event{o.Record(rec, u)}, nil
}

// NeedsAddress tells whether pieces of the order may still have to go on their way, or are on it.
func (o *Order) NeedsAddress() bool {
	return !o.Status.Final() && (o.PaymentStatus != PaymentStatusRefunded || o.InTransit > 0)
}

// EraseAddress records that the shipping address is erased, whatever the order's status: it is a right of the customer, not a change of
// the order. The caller knows that there is one.
func (o *Order) EraseAddress(rec Recorder) Event {
	return o.Record(rec, Updated{ShippingAddressChanged: true})
}
