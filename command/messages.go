package command

import (
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
)

// TopicOrders carries an OrderChanged for each event of an order, in the order of its versions.
const TopicOrders = "orders"

// TypeOrderChanged is the type of an OrderChanged's message. The message's id is the event's.
const TypeOrderChanged = "order.changed"

// OrderChanged is the data of a message which tells that an order has a new version.
type OrderChanged struct {
	Event   string `json:"event"` // the event's type
	Version int64  `json:"version"`
	Rev     int64  `json:"rev"`
}

// changed tells the other parts of an event.
func (c *orderChange) changed(e order.Event) outbox.Message {
	cause := outbox.Cause{ID: e.ID, TraceID: e.Cause.TraceID, Now: e.At}
	return outbox.New(TopicOrders, TypeOrderChanged, c.ref(), cause, OrderChanged{Event: e.Type, Version: e.Version, Rev: c.rev})
}
