package order

import (
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

// Command is a client's request to change an existing order.
type Command string

// The commands. Each has a cell in every row of the table below.
const (
	Cancel Command = "cancel"
	Pay    Command = "pay"
)

// allowed is the cell of a command that the status allows.
const allowed errcode.Code = ""

// state is one row of the table.
type state struct {
	status   Status
	next     []Status                 // the statuses that can follow; none: the status is final
	commands map[Command]errcode.Code // allowed, or the refusal's code
}

// states is the one table of an order's life cycle. It decides, and docs/saga.md shows it.
var states = []state{
	{StatusPending, []Status{StatusReserved, StatusRejected, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed, Pay: errcode.ORD002}},
	{StatusReserved, []Status{StatusConfirmed, StatusRejected, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed, Pay: allowed}},
	{StatusConfirmed, []Status{StatusCompleted, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed, Pay: errcode.PAY002}},
	{StatusCompleted, nil, map[Command]errcode.Code{Cancel: errcode.ORD002, Pay: errcode.PAY002}},
	{StatusRejected, nil, map[Command]errcode.Code{Cancel: errcode.ORD002, Pay: errcode.ORD002}},
	{StatusCancelled, nil, map[Command]errcode.Code{Cancel: errcode.ORD007, Pay: errcode.ORD002}},
}

func (s Status) state() state {
	i := slices.IndexFunc(states, func(st state) bool { return st.status == s })
	if i < 0 {
		return state{status: s}
	}
	return states[i]
}

// Final tells whether no status can follow.
func (s Status) Final() bool { return len(s.state().next) == 0 }

// check refuses a command that the order's status does not allow: with the table's code, and with from and allowed if that is ORD_002.
func (o *Order) check(c Command) error {
	code, known := o.Status.state().commands[c]
	switch {
	case !known || code == errcode.ORD002:
		return o.notAllowed()
	case code != allowed:
		return apierr.E(code)
	}
	return nil
}

// notAllowed is ORD_002 with where the order is and can go.
func (o *Order) notAllowed() error {
	return apierr.E(errcode.ORD002, apierr.Extra("from", o.Status), apierr.Extra("allowed", append([]Status{}, o.Status.state().next...)))
}

// CheckPay refuses a payment of the order. Refusals: those of the table; INV_003 if its reservation has expired; ORD_002 if it is to be
// cancelled; PAY_002 if a payment came with it or is under way. expired and paying are what the saga's steps say.
func (o *Order) CheckPay(expired, paying bool) error {
	switch err := o.check(Pay); {
	case expired, o.Rejection != nil && o.Rejection.Code == string(errcode.INV003):
		return apierr.E(errcode.INV003)
	case err != nil:
		return err
	case o.CancelRequestedAt != nil:
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

// CanBecome tells whether the table has the status among those that can follow the order's. The saga's events come without a check: they
// follow the table because its steps do.
func (o *Order) CanBecome(next Status) bool { return slices.Contains(o.Status.state().next, next) }
