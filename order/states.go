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
	{StatusPending, []Status{StatusReserved, StatusRejected, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed}},
	{StatusReserved, []Status{StatusConfirmed, StatusRejected, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed}},
	{StatusConfirmed, []Status{StatusCompleted, StatusCancelled}, map[Command]errcode.Code{Cancel: allowed}},
	{StatusCompleted, nil, map[Command]errcode.Code{Cancel: errcode.ORD002}},
	{StatusRejected, nil, map[Command]errcode.Code{Cancel: errcode.ORD002}},
	{StatusCancelled, nil, map[Command]errcode.Code{Cancel: errcode.ORD007}},
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
	st := o.Status.state()
	code, known := st.commands[c]
	switch {
	case !known || code == errcode.ORD002:
		return apierr.E(errcode.ORD002, apierr.Extra("from", o.Status), apierr.Extra("allowed", append([]Status{}, st.next...)))
	case code != allowed:
		return apierr.E(code)
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
