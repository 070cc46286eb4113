// Package faults lets one request meet a failure on purpose, where it would really happen: in a guard, at a COMMIT, in a handler. The request
// carries the failure's name in its context. Others meet nothing, no breaker counts it, and nothing of it is cached.
package faults

import (
	"context"
	"errors"

	"github.com/ordergate/ordergate/gen/errcode"
)

// Header names the failure that a request asks for.
const Header = "X-Ordergate-Fault"

// Name is a failure that a request can meet.
type Name string

// The failures.
const (
	Panic         Name = "panic"          // the handler panics
	PrimaryAway   Name = "primary-away"   // no tier and no database can be asked
	Deadline      Name = "deadline"       // a command's time is over before its COMMIT
	Behind        Name = "behind"         // no database has what a read's token demands
	Draining      Name = "draining"       // the process stops
	CommitUnknown Name = "commit-unknown" // a command's COMMIT takes effect, and its answer is lost
	CommitLost    Name = "commit-lost"    // a command's COMMIT is lost and takes no effect
	InProgress    Name = "in-progress"    // another request holds the idempotency key
	Rate          Name = "rate"           // the key's limit is used up
	QueueFull     Name = "queue-full"     // too many wait for the database
	ProviderAway  Name = "provider-away"  // the provider's breaker is open
)

// Names are all of them.
var Names = []Name{Panic, PrimaryAway, Deadline, Behind, Draining, CommitUnknown, CommitLost, InProgress, Rate, QueueFull, ProviderAway}

// Codes are the refusals that they end with, for the gateway and for the suite that provokes them.
var Codes = map[Name]errcode.Code{
	Panic: errcode.SYS001, PrimaryAway: errcode.SYS002, Deadline: errcode.SYS003, Behind: errcode.SYS004, Draining: errcode.SYS005,
	CommitUnknown: errcode.SYS006, CommitLost: errcode.SYS006, InProgress: errcode.IDEM003, Rate: errcode.RATE001, QueueFull: errcode.RATE003,
	ProviderAway: errcode.PAY008,
}

// Err marks the errors that were made on purpose. They say nothing of a remote part.
var Err = errors.New("failure on purpose")

type contextKey struct{}

// With lets all that is done under the context meet a failure.
func With(ctx context.Context, name Name) context.Context {
	return context.WithValue(ctx, contextKey{}, name)
}

// In is the failure that what is done under the context meets; empty: none.
func In(ctx context.Context) Name {
	name, _ := ctx.Value(contextKey{}).(Name)
	return name
}
