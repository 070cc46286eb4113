// Package faults lets one request meet a failure on purpose, where it would really happen: in a guard, at a COMMIT, in a handler. The request
// carries the failure's name in its context. Others meet nothing, no breaker counts it, and nothing of it is cached.
package faults

import (
	"context"
	"errors"
)

// Header names the failure that a request asks for.
const Header = "X-Ordergate-Fault"

// Name is a failure that a request can meet.
type Name string

// The failures, and the code that each ends with.
const (
	Panic         Name = "panic"          // the handler panics: SYS_001
	PrimaryAway   Name = "primary-away"   // no tier and no database can be asked: SYS_002
	Deadline      Name = "deadline"       // a command's time is over before its COMMIT: SYS_003
	Behind        Name = "behind"         // no database has what a read's token demands: SYS_004
	Draining      Name = "draining"       // the process stops: SYS_005
	CommitUnknown Name = "commit-unknown" // a command's COMMIT takes effect, and its answer is lost: SYS_006
	CommitLost    Name = "commit-lost"    // a command's COMMIT is lost and takes no effect: SYS_006
	InProgress    Name = "in-progress"    // another request holds the idempotency key: IDEM_003
	Rate          Name = "rate"           // the key's limit is used up: RATE_001
	QueueFull     Name = "queue-full"     // too many wait for the database: RATE_003
	ProviderAway  Name = "provider-away"  // the provider's breaker is open: PAY_008
)

// Names are all of them.
var Names = []Name{Panic, PrimaryAway, Deadline, Behind, Draining, CommitUnknown, CommitLost, InProgress, Rate, QueueFull, ProviderAway}

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
