// Package outbox has the one envelope of all messages and writes messages into the outbox, in the transaction of their cause.
package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// Schema is the version of the messages' data. A change that older consumers cannot decode raises it.
const Schema = 1

// Envelope is the JSON of every message.
type Envelope struct {
	ID        uuid.UUID       `json:"id"` // UUIDv7; consumers drop a message that they have seen by it
	Type      string          `json:"type"`
	Schema    int32           `json:"schema"`
	Account   int32           `json:"account"`
	Mode      string          `json:"mode"`
	OrderID   string          `json:"order_id"` // ord_...
	TraceID   string          `json:"trace_id"` // of the request that caused it
	CreatedAt rfc3339.Time    `json:"created_at"`
	Data      json.RawMessage `json:"data"`
}

// Message is an envelope on its way to a topic. The messages of one order keep their order within a topic.
type Message struct {
	Topic string
	Envelope
}

// Cause identifies a message, the request that caused it and the instant.
type Cause struct {
	ID      order.ID // of the message
	TraceID string
	Now     time.Time
}

// New makes a message about an order. It panics if data cannot be encoded, which plain structs always can.
func New(topic, messageType string, about order.Ref, c Cause, data any) Message {
	b, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("outbox: %s cannot be encoded: %v", messageType, err))
	}
	return Message{Topic: topic, Envelope: Envelope{
		ID: uuid.UUID(c.ID), Type: messageType, Schema: Schema, Account: about.Account, Mode: about.Mode, OrderID: about.ID.Format(order.PrefixOrder),
		TraceID: c.TraceID, CreatedAt: rfc3339.New(c.Now), Data: b,
	}}
}

// Open reads the envelope of a payload. The error is a payload that is no envelope, an unknown schema or a malformed order id.
func Open(payload []byte) (Envelope, error) {
	var e Envelope
	if err := jsonv2.Unmarshal(payload, &e); err != nil {
		return e, fmt.Errorf("decode envelope: %w", err)
	}
	if e.Schema != Schema {
		return e, fmt.Errorf("%s: unknown schema %d", e.Type, e.Schema)
	}
	if _, ok := order.Parse(order.PrefixOrder, e.OrderID); !ok {
		return e, fmt.Errorf("%s: malformed order id %q", e.Type, e.OrderID)
	}
	return e, nil
}

// Ref is the order that the message is about.
func (e Envelope) Ref() order.Ref {
	id, _ := order.Parse(order.PrefixOrder, e.OrderID)
	return order.Ref{Owner: order.Owner{Account: e.Account, Mode: e.Mode}, ID: id}
}

// Decode reads the data into a value of the type's struct.
func (e Envelope) Decode(data any) error {
	if err := jsonv2.Unmarshal(e.Data, data); err != nil {
		return fmt.Errorf("decode %s: %w", e.Type, err)
	}
	return nil
}

// Send writes the messages into the outbox, in their order, in the transaction of db. For the order of a key it must come after
// the lock on the order; the relay publishes them after COMMIT, at once if it is woken then.
func Send(ctx context.Context, db busdb.DBTX, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	payloads := make([]string, len(messages))
	for i, m := range messages {
		payload, err := json.Marshal(m.Envelope)
		if err != nil {
			return fmt.Errorf("encode %s: %w", m.Type, err)
		}
		payloads[i] = string(payload)
	}
	return busdb.New(db).InsertOutbox(ctx, busdb.InsertOutboxParams{
		Shards:     pg.Column(messages, func(m Message) int16 { return m.Ref().ID.Shard() }),
		Topics:     pg.Column(messages, func(m Message) string { return m.Topic }),
		Keys:       pg.Column(messages, func(m Message) string { return m.OrderID }),
		MessageIds: pg.Column(messages, func(m Message) uuid.UUID { return m.ID }),
		TraceIds:   pg.Column(messages, func(m Message) string { return m.TraceID }),
		Payloads:   payloads,
	})
}
