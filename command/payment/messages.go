package payment

import "github.com/ordergate/ordergate/order"

// TopicReplies is the topic of payment's replies.
const TopicReplies = "payment.replies"

// Types of messages.
const (
	Succeeded = "payment.succeeded" // a Reply
	Failed    = "payment.failed"    // a Reply: nothing is charged
	Refunded  = "payment.refunded"  // a RefundNote
)

// Operation is an operation of the provider. It has the name of its saga step.
type Operation string

// The operations.
const (
	Authorize Operation = "authorize"
	Capture   Operation = "capture"
	Void      Operation = "void"
	Refund    Operation = "refund"
)

// Reply is the definite outcome of an operation that the saga asked for, on one attempt of an order's payment.
type Reply struct {
	Operation     Operation `json:"operation"`
	Attempt       int32     `json:"attempt"`
	PaymentID     string    `json:"payment_id"`
	Code          string    `json:"code,omitempty"` // of Failed: PAY_003, PAY_006 or PAY_007
	DeclineReason string    `json:"decline_reason,omitempty"`
}

// RefundNote tells of a refund that succeeded, of a client's or of the saga's.
type RefundNote struct {
	RefundID string      `json:"refund_id"`
	Amount   order.Money `json:"amount"`
}
