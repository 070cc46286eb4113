package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/order"
)

// atOnce adds calls at one moment, in their order.
func (q *queue) atOnce(calls ...*call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, one := range calls {
		one.names = namesOf(one)
		q.waiting = append(q.waiting, one)
		q.count(1, one)
	}
	q.dispatch()
}

// taken is a batch that a queue began. The test says when it goes on: first its transaction ends, then its calls.
type taken struct {
	names  string
	calls  []*call
	commit chan struct{}
	finish chan struct{}
}

// tried is a queue whose batches the test runs.
type tried struct {
	*queue
	t       *testing.T
	batches chan *taken
}

func newTried(t *testing.T) *tried {
	t.Helper()
	q := &tried{t: t, batches: make(chan *taken, 100)}
	q.queue = newQueue(prometheus.NewRegistry(), func(calls []*call) {
		b := &taken{calls: calls, commit: make(chan struct{}), finish: make(chan struct{})}
		for _, one := range calls {
			b.names += cmp.Or(one.Key, ".")
		}
		q.batches <- b
		<-b.commit
		calls[0].over()
		<-b.finish
		for _, one := range calls {
			one.finish(Result{Status: 202}, nil)
		}
	})
	return q
}

// aCall is a call of a key, empty for none, about an order; 0: about none.
func aCall(key string, about byte) *call {
	one := &call{Envelope: Envelope{Owner: alice, Operation: "test", Key: key}, deadline: time.Now().Add(time.Hour), ended: make(chan struct{})}
	if about > 0 {
		one.needs.orders = []order.Ref{{Owner: alice, ID: order.ID{about}}}
	}
	return one
}

// send lets a caller of its own do a call. It returns how the call ends.
func (q *tried) send(ctx context.Context, key string, about byte) <-chan string {
	one := aCall(key, about)
	end := make(chan string, 1)
	go func() { q.do(ctx, one); end <- got(one) }()
	synctest.Wait()
	return end
}

// begun is the next batch that has begun.
func (q *tried) begun() *taken {
	q.t.Helper()
	synctest.Wait()
	select {
	case b := <-q.batches:
		return b
	default:
		q.t.Fatal("no batch has begun")
		return nil
	}
}

func (q *tried) nothingBegins() {
	q.t.Helper()
	synctest.Wait()
	select {
	case b := <-q.batches:
		q.t.Fatal("a batch has begun: ", b.names)
	default:
	}
}

// all lets a batch end, and all that begin after it, and returns them.
func (q *tried) all(b *taken) (names string) {
	q.t.Helper()
	for {
		close(b.commit)
		close(b.finish)
		synctest.Wait()
		select {
		case b = <-q.batches:
			names += " " + b.names
		default:
			if len(q.waiting) > 0 || len(q.busy) > 0 || q.queue.batches != 0 {
				q.t.Errorf("%d wait, %d names are busy, %d batches run", len(q.waiting), len(q.busy), q.queue.batches)
			}
			return strings.TrimSpace(names)
		}
	}
}

func TestWhatWaitsAtTheSameMomentIsABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		var ends []<-chan string
		for _, key := range []string{"a", "b", "c", "b", "d"} { // the second b is held back
			ends = append(ends, q.send(t.Context(), key, 0))
		}
		first := q.begun()
		if q.nothingBegins(); first.names != "a" {
			t.Error("first ", first.names)
		}
		if got := q.all(first); got != "bcd b" {
			t.Error(got)
		}
		for _, end := range ends {
			if got := <-end; got != "202" {
				t.Error(got)
			}
		}
	})
}

func TestASecondBatchBeginsWhenEnoughWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		q.send(t.Context(), "a", 1)
		first := q.begun()
		q.send(t.Context(), "held", 1) // it does not count: it cannot stand beside the first
		for i := range secondFrom - 1 {
			q.send(t.Context(), strconv.Itoa(i), 0)
		}
		q.nothingBegins()
		q.send(t.Context(), "x", 0)
		second := q.begun()
		if second.names != "0123456x" {
			t.Error("second ", second.names)
		}
		for i := range 2 * maxBatch {
			q.send(t.Context(), fmt.Sprint("-", i), 0)
		}
		q.nothingBegins() // two run
		close(second.commit)
		if third := q.begun(); len(third.calls) != maxBatch || third.calls[0].Key != "-0" {
			t.Errorf("the third has %d", len(third.calls))
		} else {
			close(third.commit)
			close(third.finish)
		}
		close(second.finish)
		synctest.Wait()
		b := q.begun()
		close(b.commit)
		close(b.finish)
		if got := q.all(first); got != "held" {
			t.Error(got)
		}
	})
}

// What follows a transaction, such as the wait of one call for a row, keeps the call's names and nothing else.
func TestTheNextBatchBeginsAfterTheTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		q.send(t.Context(), "a", 1)
		first := q.begun()
		close(first.commit)
		synctest.Wait()
		q.send(t.Context(), "same order", 1)
		q.nothingBegins()
		q.send(t.Context(), "other", 2)
		other := q.begun()
		if close(other.commit); other.names != "other" {
			t.Error(other.names)
		}
		close(other.finish)
		q.nothingBegins()
		close(first.finish)
		if last := q.begun(); last.names != "same order" {
			t.Error(last.names)
		} else if got := q.all(last); got != "" {
			t.Error(got)
		}
	})
}

func TestACallerThatLeavesTakesItsCallAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		leaving, leave := context.WithCancel(t.Context())
		taken := q.send(leaving, "taken", 0)
		first := q.begun()
		waiting := q.send(leaving, "waiting", 1)
		behind := q.send(t.Context(), "behind", 1)
		leave()
		synctest.Wait()
		if got := <-waiting; got != "SYS_003" {
			t.Error("it waited: ", got)
		}
		select {
		case got := <-taken:
			t.Error("a call that was taken ends by its batch, and not ", got)
		default:
		}
		if got := q.all(first); got != "behind" {
			t.Error(got)
		}
		if got := <-taken + " " + <-behind; got != "202 202" {
			t.Error(got)
		}
	})
}

func TestAFullQueueRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		var orders []*call
		for i := range byte(maxBatch) {
			orders = append(orders, aCall("", 1+i))
		}
		q.atOnce(orders...)
		first := q.begun()
		for i := range maxWaiting {
			q.send(t.Context(), "", byte(1+i%maxBatch))
		}
		q.nothingBegins()
		if refused := <-q.send(t.Context(), "b", 0); refused != "RATE_003" {
			t.Error(refused)
		}
		if n := len(strings.Fields(q.all(first))); n != maxWaiting/maxBatch {
			t.Errorf("%d batches, in each all orders", n)
		}
	})
}

// Callers that ask for the same do not fill the queue.
func TestTooManyCallsAboutTheSameAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		q.send(t.Context(), "", 1)
		first := q.begun()
		for range maxNamed {
			q.send(t.Context(), "", 1)
		}
		if refused := <-q.send(t.Context(), "", 1); refused != "RATE_003" {
			t.Error(refused)
		}
		q.send(t.Context(), "key", 2)
		for range maxNamed {
			q.send(t.Context(), "key", 0)
		}
		if refused := <-q.send(t.Context(), "key", 0); refused != "IDEM_003" { // the request is in progress
			t.Error(refused)
		}
		q.all(first)
		q.send(t.Context(), "", 1)
		q.all(q.begun())
		if len(q.named) > 0 {
			t.Errorf("%d names are kept", len(q.named))
		}
	})
}

// A call that waits is refused when there is no time left for a transaction.
func TestACallIsWithdrawnInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTried(t)
		q.send(t.Context(), "", 1)
		first := q.begun()
		one := aCall("late", 1)
		one.deadline = time.Now().Add(Budget)
		begin := time.Now()
		q.do(t.Context(), one)
		if took := time.Since(begin); got(one) != "RATE_003" || took != Budget-leastTime {
			t.Errorf("%s after %v", got(one), took)
		}
		if got := q.all(first); got != "" {
			t.Error("it was begun")
		}
	})
}

// What is about an order that is there comes before orders that are to come, and takes their places.
func TestUrgentCallsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mixed := []*call{}
		for i := range byte(2 * maxBatch) {
			mixed = append(mixed, aCall("", 1+i))
		}
		for range maxBatch {
			mixed = append(mixed, aCall("", 0))
		}
		batch, _ := nextBatch(mixed, nil, namesOf)
		if urgent := slices.IndexFunc(batch, func(c *call) bool { return !c.isUrgent() }); len(batch) != maxBatch || urgent != maxBatch-notUrgent {
			t.Errorf("of a batch of %d are %d urgent", len(batch), urgent)
		}
		if batch, _ = nextBatch(mixed[:maxBatch], nil, namesOf); len(batch) != maxBatch {
			t.Errorf("of urgent calls alone a batch has %d", len(batch))
		}
		q := newTried(t)
		q.send(t.Context(), "a", 0)
		first := q.begun()
		q.send(t.Context(), "n", 0)
		q.send(t.Context(), "u", 1)
		q.send(t.Context(), "v", 2)
		for i := range maxWaiting - 3 {
			q.send(t.Context(), fmt.Sprint("-", i), 0)
		}
		second := q.begun()
		if !strings.HasPrefix(second.names, "uvn-0") {
			t.Error(second.names)
		}
		var last <-chan string
		for n := len(q.waiting); n < maxWaiting; n++ {
			last = q.send(t.Context(), fmt.Sprint("+", n), 0)
		}
		if refused := <-q.send(t.Context(), "more", 0); refused != "RATE_003" {
			t.Error("a full queue: ", refused)
		}
		urgent := q.send(t.Context(), "w", 3)
		if got := <-last; got != "RATE_003" {
			t.Error("its place: ", got)
		}
		close(first.commit)
		close(first.finish)
		third := q.begun()
		if !strings.HasPrefix(third.names, "w") {
			t.Error(third.names)
		}
		close(second.commit)
		close(second.finish)
		if q.all(third); <-urgent != "202" {
			t.Error("it was refused")
		}
	})
}

func TestAPanicEndsTheCallsThatAreNotDone(t *testing.T) {
	q := newQueue(nil, nil)
	one, other := &call{ended: make(chan struct{})}, &call{ended: make(chan struct{})}
	q.execute = func(calls []*call) {
		defer calls[0].over()
		calls[0].finish(Result{Status: 202}, nil)
		q.end(calls)
		<-one.ended // it did not wait for the other
		panic("a bug")
	}
	q.batches = 1 // so that both are one batch
	q.atOnce(one, other)
	q.over()
	<-other.ended
	if got(one) != "202" || !errors.Is(other.err, panics.ErrPanic) {
		t.Error(one.err, other.err)
	}
	if q.do(t.Context(), &call{deadline: time.Now().Add(time.Hour), ended: make(chan struct{})}); len(q.waiting) > 0 {
		t.Error("the next one waits")
	}
}
