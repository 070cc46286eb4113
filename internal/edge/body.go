package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/internal/panics"
)

// Decode implements api.Request. The body is read once, into its type, and checked at the same time. An optional body may be left out, be empty or
// be null, which several generated clients send for one that is left out. An api.MergePatch is the body in its canonical form (RFC 8785).
// REQ_001, REQ_002, REQ_004, REQ_008.
func (r *request) Decode(to any) (given bool, err error) {
	if !r.bodyRead {
		if err = r.readBody(); err != nil {
			return false, err
		}
	}
	patch, ok := to.(*api.MergePatch)
	if !ok {
		return check.Decode(r.raw, !r.op.BodyRequired, r.op.Body, to)
	}
	if given, err = check.Decode(r.raw, !r.op.BodyRequired, r.op.Body, nil); given {
		text := jsontext.Value(r.raw)
		err, *patch = text.Canonicalize(), api.MergePatch(text)
	}
	return given, err
}

// MaxBody is the greatest request body in bytes; more is REQ_008.
const MaxBody = 256 << 10

// bodyBuffers hold bodies until they have ended. A body is copied out of its buffer once; all that is decoded shares the copy.
var bodyBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxKeptBuffer bounds the buffers that wait in the pool, in bytes.
const maxKeptBuffer = 16 << 10

// readBody reads the body to its end: REQ_008 if it is too large, REQ_001 if the client stops sending, SYS_005 if the server stops meanwhile.
func (r *request) readBody() error {
	b, _ := bodyBuffers.Get().(*bytes.Buffer)
	b.Reset()
	done := r.endBodyWithServer()
	_, err := b.ReadFrom(http.MaxBytesReader(r.response.Writer, r.http.Body, MaxBody))
	cut := done()
	r.bodyLate = cut || timedOut(err)
	r.raw = b.String()
	if b.Cap() <= maxKeptBuffer {
		bodyBuffers.Put(b)
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return apierr.E(errcode.REQ008)
	}
	switch {
	case cut:
		return drain(r)
	case err != nil:
		return apierr.E(errcode.REQ001, apierr.At("", errcode.RuleComplete), apierr.Cause(err))
	}
	r.bodyRead = true
	return nil
}

// smallBody is the greatest length of a body that is read although its request is refused.
const smallBody = 16 << 10

// takeSmallBody reads the body of a request that is refused, so that its connection stays open: a new one costs an overloaded server more.
func (r *request) takeSmallBody() {
	if n := r.http.ContentLength; n > 0 && n <= smallBody && !r.bodyRead {
		_ = r.readBody() // the refusal stands
	}
}

// endBodyWithServer ends the reading of a body when the server that stops waits no longer for it. done is called when the body has been read, and
// tells whether that has happened: nothing more can be done for the request, even if its body was complete, since its context may have ended with it.
func (r *request) endBodyWithServer() (done func() bool) {
	conn, over := http.NewResponseController(r.response.Writer), make(chan struct{})
	inTime := context.AfterFunc(r.server.bodiesOver, func() {
		defer panics.Sync(r.server.cfg.Log)
		defer close(over)
		_ = conn.SetReadDeadline(connDeadline(0)) // a test's recorder has none
	})
	return func() bool {
		if inTime() {
			return false
		}
		<-over
		return true
	}
}

// emptyBody tells whether a body of unknown length ends at once. It waits at most for lingering; a byte that it reads is lost.
func (r *request) emptyBody() bool {
	conn := http.NewResponseController(r.response.Writer)
	_ = conn.SetReadDeadline(connDeadline(lingering)) // a test's recorder has none
	n, err := r.http.Body.Read(make([]byte, 1))
	_ = conn.SetReadDeadline(time.Time{})
	r.bodyRead = n == 0 && errors.Is(err, io.EOF)
	return r.bodyRead
}

// lingering is the time that the rest of an unread body is read, so that a client which is still sending sees the response.
const lingering = 500 * time.Millisecond
