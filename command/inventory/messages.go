package inventory

import (
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// Topics of the commands that inventory takes and of its replies.
const (
	TopicCommands = "inventory.commands"
	TopicReplies  = "inventory.replies"
)

// Types of commands. Expire comes from inventory itself when a reservation's time is over.
const (
	Reserve = "inventory.reserve"
	Confirm = "inventory.confirm"
	Cancel  = "inventory.cancel"
	Expire  = "inventory.expire"
)

// Types of replies: each command has one definite outcome, and an Expire of a reservation that is no longer held has none.
const (
	Reserved       = "inventory.reserved"
	ReserveRefused = "inventory.reserve_refused" // SKUs says what was short; none: a cancel was there first
	Confirmed      = "inventory.confirmed"
	ConfirmRefused = "inventory.confirm_refused" // the reservation had expired or was cancelled
	Cancelled      = "inventory.cancelled"
	Expired        = "inventory.expired"
)

// Line is how many pieces of a sku.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Command is the data of a command about one attempt to reserve an order's stock. (order, attempt) is repeated safely.
type Command struct {
	Attempt int32  `json:"attempt"`
	Lines   []Line `json:"lines,omitempty"` // of Reserve
}

// Reply is the data of a reply.
type Reply struct {
	Attempt   int32            `json:"attempt"`
	SKUs      []order.ShortSKU `json:"skus,omitempty"`       // of ReserveRefused
	ExpiresAt *rfc3339.Time    `json:"expires_at,omitempty"` // of Reserved
}
