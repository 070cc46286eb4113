package inventory

import (
	"time"

	"github.com/ordergate/ordergate/order"
)

// Topics of the commands that inventory takes and of its replies.
const (
	TopicCommands = "inventory.commands"
	TopicReplies  = "inventory.replies"
)

// Kinds of commands.
const (
	Reserve = "reserve"
	Confirm = "confirm"
	Cancel  = "cancel"
)

// Kinds of replies: each command has one definite outcome; ReservationEnded comes by itself.
const (
	Reserved         = "reserved"
	ReserveRefused   = "reserve_refused" // SKUs says what was short; none: a cancel was there first
	Confirmed        = "confirmed"
	ConfirmRefused   = "confirm_refused" // the reservation had expired or was cancelled
	Cancelled        = "cancelled"
	ReservationEnded = "expired"
)

// Line is how many pieces of a sku.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Command asks for one step of one order's reservation. (order, attempt) is repeated safely.
type Command struct {
	Kind    string      `json:"kind"`
	Owner   order.Owner `json:"owner"`
	OrderID order.ID    `json:"order_id"`
	Attempt int32       `json:"attempt"`
	Lines   []Line      `json:"lines,omitempty"` // of Reserve
}

// Reply is the definite outcome of a Command.
type Reply struct {
	Kind      string           `json:"kind"`
	Owner     order.Owner      `json:"owner"`
	OrderID   order.ID         `json:"order_id"`
	Attempt   int32            `json:"attempt"`
	SKUs      []order.ShortSKU `json:"skus,omitempty"`
	ExpiresAt time.Time        `json:"expires_at"`
}
