package failpoint

// Point is a place in the program where it can be made to fail, between two steps whose order matters.
type Point string

// The points of a command, in the order in which it passes them.
const (
	// CommandKeysResolved: the locks of the keys are had and the keys looked up; nothing is decided.
	CommandKeysResolved Point = "command.keys-resolved"
	// CommandRowsLocked: the rows that the batch needs are locked and read.
	CommandRowsLocked Point = "command.rows-locked"
	// CommandDecided: each command of the batch has decided; nothing is written.
	CommandDecided Point = "command.decided"
	// CommandCommitted: COMMIT was answered; no cache has the new states and the relay is not woken.
	CommandCommitted Point = "command.committed"
	// CommandWrittenThrough: the caches have the new states; no caller has its result.
	CommandWrittenThrough Point = "command.written-through"
	// CommandAnswered: the command has its result; no byte of the answer is sent.
	CommandAnswered Point = "command.answered"
)

// The points of the relay.
const (
	// RelayPageSelected: the shards are locked and a page is read; nothing is published.
	RelayPageSelected Point = "relay.page-selected"
	// RelayPublished: every consumer has handled the page; its rows are in the outbox.
	RelayPublished Point = "relay.published"
	// RelayCommitted: the page is done.
	RelayCommitted Point = "relay.committed"
)

// The points of a consumer, whichever it is.
const (
	// ConsumerInboxWritten: the inbox has the messages; no handler has run.
	ConsumerInboxWritten Point = "consumer.inbox-written"
	// ConsumerHandled: the inbox has the messages, and the handler has run; COMMIT, and most of what is written, is not sent.
	ConsumerHandled Point = "consumer.handled"
	// ConsumerCommitted: COMMIT was answered; what follows it in this process (write-through, waking the relay) has not run.
	ConsumerCommitted Point = "consumer.committed"
	// ConsumerDone: all is done but the acknowledgement of the messages.
	ConsumerDone Point = "consumer.done"
	// ProjectionRepaired: the caches have the revisions of the messages; the inbox does not have the messages.
	ProjectionRepaired Point = "projection.repaired"
)

// The points of inventory.
const (
	// InventoryLocked: reservations and stock are locked; nothing is decided.
	InventoryLocked Point = "inventory.locked"
	// InventoryDecided: levels, reservations and replies are decided; nothing is written.
	InventoryDecided Point = "inventory.decided"
	// ExpireClaimed: reservations whose time is over are marked; no message about them is written.
	ExpireClaimed Point = "expire.claimed"
	// ExpireCommitted: the messages are in the outbox; the relay is not woken.
	ExpireCommitted Point = "expire.committed"
)

// The points of the saga.
const (
	// SagaLoaded: the orders of the replies are locked and read.
	SagaLoaded Point = "saga.loaded"
	// SagaAdvanced: the next steps are decided; nothing is written.
	SagaAdvanced Point = "saga.advanced"
	// SagaCommitted: COMMIT was answered; caches and waiting requests do not know of it.
	SagaCommitted Point = "saga.committed"
)

// The points of payment.
const (
	// PaymentClaimed: the call has a lease; no request is sent.
	PaymentClaimed Point = "payment.claimed"
	// PaymentAnswered: the provider has answered, or has not; the database knows of nothing.
	PaymentAnswered Point = "payment.answered"
	// PaymentPostponed: the next try has its time.
	PaymentPostponed Point = "payment.postponed"
	// PaymentCallCompleted: the call has its outcome; the payment does not, and no reply is written.
	PaymentCallCompleted Point = "payment.call-completed"
	// PaymentCommitted: COMMIT was answered; the relay is not woken.
	PaymentCommitted Point = "payment.committed"
)

// The points of maintenance.
const (
	// PurgeKeysDeleted: old idempotency keys are deleted; old inbox rows are not.
	PurgeKeysDeleted Point = "purge.keys-deleted"
	// PurgeDone: a batch of old keys and inbox rows is deleted.
	PurgeDone Point = "purge.done"
)

// All has every point.
var All = []Point{
	CommandKeysResolved, CommandRowsLocked, CommandDecided, CommandCommitted, CommandWrittenThrough,
	CommandAnswered, RelayPageSelected, RelayPublished, RelayCommitted, ConsumerInboxWritten, ConsumerHandled,
	ConsumerCommitted, ConsumerDone, ProjectionRepaired, InventoryLocked,
	InventoryDecided, ExpireClaimed, ExpireCommitted, SagaLoaded, SagaAdvanced, SagaCommitted,
	PaymentClaimed, PaymentAnswered, PaymentPostponed, PaymentCallCompleted, PaymentCommitted, PurgeKeysDeleted, PurgeDone,
}
