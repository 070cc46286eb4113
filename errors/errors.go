// Package errors holds the one error type that a client can see. It is imported as apierr, always.
package errors

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/ordergate/ordergate/gen/errcode"
)

// Error is a refusal or failure with a code of the registry. Any other error is SYS_001 to a client, and its text stays in the log.
type Error struct {
	Code   errcode.Code
	Faults []Fault        // the wrong places of the request, for `errors[]`
	Extras map[string]any // the typed extras of the code
	Cause  error          // for the log only
}

// Fault names one wrong place of a request and the rule it broke. It never contains the value.
type Fault struct {
	Pointer  string // a JSON pointer into the body, or /where/name of a parameter
	Rule     errcode.Rule
	Expected string // the contract's demand there, or the byte offset, if the rule's message names it
}

// MaxFaults is how many faults a client sees: the first ones. openapi/errors.yaml says so.
const MaxFaults = 20

// Option adds to an Error.
type Option func(*Error)

// E makes an error with a code.
func E(code errcode.Code, opts ...Option) *Error {
	e := &Error{Code: code}
	for _, o := range opts {
		o(e)
	}
	return e
}

// At adds a fault.
func At(pointer string, rule errcode.Rule) Option { return Faults(Fault{Pointer: pointer, Rule: rule}) }

// Faults adds faults.
func Faults(f ...Fault) Option { return func(e *Error) { e.Faults = append(e.Faults, f...) } }

// Extra adds a typed extra.
func Extra(name string, value any) Option {
	return func(e *Error) {
		if e.Extras == nil {
			e.Extras = map[string]any{}
		}
		e.Extras[name] = value
	}
}

// Cause keeps the underlying error, for the log.
func Cause(err error) Option { return func(e *Error) { e.Cause = err } }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	for _, f := range e.Faults {
		fmt.Fprintf(&b, " %s:%s", f.Pointer, f.Rule)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Cause }

// Retryable tells whether the same request with the same key may succeed later.
func (e *Error) Retryable() bool {
	info, _ := errcode.Lookup(e.Code)
	return info.Retryable
}

// From finds the Error in err's chain; an err without one is SYS_001 with err as its cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return E(errcode.SYS001, Cause(err))
}

// ProblemContext is the part of a problem that depends on the request.
type ProblemContext struct {
	TraceID  string
	Instance string // the request's path
	Chinese  bool   // the messages in zh-CN instead of en
}

// Problem is the error's body as application/problem+json. The status is the registry's.
func (e *Error) Problem(about ProblemContext) (status int, body []byte) {
	info, ok := errcode.Lookup(e.Code)
	if !ok {
		info, _ = errcode.Lookup(errcode.SYS001)
	}
	message := info.EN
	if about.Chinese {
		message = info.ZH
	}
	p := maps.Collect(maps.All(e.Extras))
	if len(e.Faults) > 0 {
		first := e.Faults[:min(len(e.Faults), MaxFaults)]
		faults := make([]map[string]string, len(first))
		for i, f := range first {
			faults[i] = map[string]string{"pointer": f.Pointer, "rule": string(f.Rule), "message": f.Rule.Message(about.Chinese, f.Expected)}
		}
		p["errors"] = faults
	}
	p["code"], p["type"], p["title"], p["status"] = info.Code, "/docs/errors/"+string(info.Code), info.Title, info.Status
	p["message"], p["detail"], p["instance"] = message, info.Description, about.Instance
	p["retryable"], p["trace_id"] = info.Retryable, about.TraceID
	body, err := json.Marshal(p)
	if err != nil { // a bug: an extra cannot be encoded
		return E(errcode.SYS001).Problem(about)
	}
	return info.Status, append(body, '\n')
}
