package order

// Kinds of resources other than orders.
const (
	KindPayment   = "payment"
	KindRefund    = "refund"
	KindShipment  = "shipment"
	KindInventory = "inventory"
)

// Resource identifies what a ResourceEvent is about: by its kind, and by its id as clients see it or its sku.
type Resource struct {
	Owner
	Kind, ID string
}

// Head is where the history of a resource stands. The zero value is a resource without events.
type Head struct {
	Version int64 // the sequence of the last event
	Hash    []byte
}

// ResourceEvent is one event of a resource other than an order. Its Version is the resource's sequence.
type ResourceEvent struct {
	Resource
	Event
}

// Next makes the next event of the resource and moves the head on.
func (h *Head) Next(r Resource, rec Recorder, eventType string, schema int32, data any) ResourceEvent {
	e := rec.Event(r.chained(), h.Version, h.Hash, eventType, schema, data)
	h.Version, h.Hash = e.Version, e.Hash
	return ResourceEvent{r, e}
}

// Verify checks that events are the complete, unchanged history of the resource from its first one on.
func (r Resource) Verify(history []Event) error { return r.NewChain().verify(history) }

// NewChain begins with the resource's first event.
func (r Resource) NewChain() *Chain { return &Chain{resource: r.chained()} }

// chained is the resource as the hashes cover it.
func (r Resource) chained() []byte { return []byte(r.Kind + "/" + r.ID) }
