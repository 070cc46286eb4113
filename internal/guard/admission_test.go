package guard

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/panics"
)

// database does batches of what waits, as the queue of commands does. It does 3,500 a second at most.
type database struct {
	waiting chan chan struct{}
}

const (
	perBatch = 2 * time.Millisecond
	perOne   = 250 * time.Microsecond
	capacity = 64 / (0.002 + 64*0.00025)
)

func (d *database) run(stop <-chan struct{}) {
	for {
		var batch []chan struct{}
		select {
		case <-stop:
			return
		case one := <-d.waiting:
			batch = append(batch, one)
		}
		for len(batch) < 64 && len(d.waiting) > 0 {
			batch = append(batch, <-d.waiting)
		}
		<-time.After(perBatch + time.Duration(len(batch))*perOne)
		for _, one := range batch {
			close(one)
		}
	}
}

// do does admitted work and ends it.
func (d *database) do(w Work) {
	one := make(chan struct{})
	d.waiting <- one
	<-one
	w.End(true)
}

// clients ask for as long as they are to, each again when it is served, or at once when it is refused. The result is how often one was refused after from.
func (d *database) clients(a *Admission, p Priority, from, lasts time.Duration) int64 {
	var refused atomic.Int64
	begin := time.Now()
	for range 128 {
		go func() {
			for time.Since(begin) < lasts {
				w, err := a.Begin(p)
				if err == nil {
					d.do(w)
					continue
				}
				if time.Since(begin) > from {
					refused.Add(1)
				}
				<-time.After(time.Millisecond)
			}
		}()
	}
	<-time.After(lasts + time.Second)
	return refused.Load()
}

// outcome is what became of a load.
type outcome struct {
	mu       sync.Mutex
	took     []time.Duration // of what was accepted
	accepted [priorities]int
	refused  [priorities]int
}

func (o *outcome) p99() time.Duration {
	return slices.Sorted(slices.Values(o.took))[len(o.took)*99/100]
}

func (o *outcome) share(p Priority) float64 {
	return float64(o.accepted[p]) / float64(o.accepted[p]+o.refused[p])
}

// offer sends work at random moments, so much a second in the mean, of which a tenth is urgent and three tenths are low; what comes after warm is counted.
func offer(a *Admission, d *database, rate float64, warm, measure time.Duration) *outcome {
	o, random, begin := &outcome{}, rand.New(rand.NewPCG(1, 2)), time.Now()
	for time.Since(begin) < warm+measure {
		<-time.After(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		p := [10]Priority{Urgent, Low, Low, Low, Normal, Normal, Normal, Normal, Normal, Normal}[random.IntN(10)]
		counted := time.Since(begin) > warm
		if a.Check(p) != nil {
			if counted {
				o.mu.Lock()
				o.refused[p]++
				o.mu.Unlock()
			}
			continue
		}
		go func() {
			w, err := a.Begin(p)
			if err != nil {
				return
			}
			begun := time.Now()
			d.do(w)
			if counted {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.took = append(o.took, time.Since(begun))
				o.accepted[p]++
			}
		}()
	}
	synctest.Wait()
	<-time.After(time.Second)
	o.mu.Lock()
	defer o.mu.Unlock()
	return &outcome{took: slices.Clone(o.took), accepted: o.accepted, refused: o.refused}
}

// inOverload runs a test with a database in a bubble of its own.
func inOverload(t *testing.T, test func(*testing.T, *database)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d, stop := &database{make(chan chan struct{}, 100_000)}, make(chan struct{})
		go d.run(stop)
		defer close(stop)
		test(t, d)
	})
}

// The goals of an overload, with time that passes in the bubble alone: at four times the capacity nearly all of it is used, and what is accepted is answered in
// good time; urgent work is refused last, low work first; when it is over, nothing is refused.
func TestAnOverloadIsShed(t *testing.T) {
	t.Parallel()
	inOverload(t, func(t *testing.T, d *database) {
		t.Helper()
		a := NewAdmission(nil)
		offer := func(times float64) *outcome { return offer(a, d, times*capacity, 2*time.Second, 8*time.Second) }
		half := offer(0.5)
		if half.share(Low) < 1 || half.share(Normal) < 1 || half.share(Urgent) < 1 {
			t.Error("at half of the capacity something is refused")
		}
		for range 3 { // also when it lasts
			over := offer(4)
			if goodput := float64(len(over.took)) / 8 / capacity; goodput < 0.8 {
				t.Errorf("%.2f of the capacity is used", goodput)
			}
			if over.p99() > 3*half.p99() {
				t.Errorf("p99 %v, at half of the capacity %v", over.p99(), half.p99())
			}
			if low, normal, urgent := over.share(Low), over.share(Normal), over.share(Urgent); urgent < 0.99 || normal < 0.15 || low > normal/2 {
				t.Errorf("%.2f of urgent work is done, of normal %.2f, of low %.2f", urgent, normal, low)
			}
		}
		offer(0.9)
		if near := offer(0.9); near.share(Low) < 0.9 || near.share(Normal) < 0.98 {
			t.Errorf("below the capacity %.2f of normal work is done, and %.2f of low", near.share(Normal), near.share(Low))
		}
		if after := offer(0.5); after.share(Low) < 1 || after.p99() > half.p99()*11/10 {
			t.Errorf("afterwards %.2f of low work is done, p99 %v", after.share(Low), after.p99())
		}
	})
}

// A thousand buyers at one moment wait, and all are served.
func TestABurstIsNoOverload(t *testing.T) {
	t.Parallel()
	inOverload(t, func(t *testing.T, d *database) {
		t.Helper()
		a := NewAdmission(nil)
		for range 3 {
			var refused atomic.Int64
			for range 1000 {
				if a.Check(Normal) != nil {
					refused.Add(1)
				}
				go func() {
					w, err := a.Begin(Normal)
					if err != nil {
						refused.Add(1)
						return
					}
					d.do(w)
				}()
				<-time.After(100 * time.Microsecond)
			}
			if <-time.After(time.Second); refused.Load() > 0 || a.running.Load() != 0 {
				t.Errorf("%d refused, %d run", refused.Load(), a.running.Load())
			}
		}
		for range burst {
			if _, err := a.Begin(Low); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Begin(Normal); apierr.From(err).Code != errcode.RATE003 {
			t.Error("beyond it: ", err)
		}
		if _, err := a.Begin(Urgent); err != nil {
			t.Error("an urgent one beyond it: ", err)
		}
	})
}

// Clients that wait for their responses are never too many, up to 128 at once.
func TestClientsThatWaitAreNoOverload(t *testing.T) {
	t.Parallel()
	inOverload(t, func(t *testing.T, d *database) {
		t.Helper()
		if n := d.clients(NewAdmission(nil), Low, -1, 10*time.Second); n > 0 {
			t.Errorf("%d are refused", n)
		}
	})
}

// Nor are they after an overload, although they ask again at once when they are refused.
func TestClientsThatWaitAfterAnOverload(t *testing.T) {
	t.Parallel()
	inOverload(t, func(t *testing.T, d *database) {
		t.Helper()
		a := NewAdmission(nil)
		offer(a, d, 4*capacity, time.Second, time.Second)
		if n := d.clients(a, Normal, 12*time.Second, 20*time.Second); n > 0 {
			t.Errorf("%d are refused still", n)
		}
	})
}

// Work that ended keeps no place, however it ended.
func TestWorkThatEndedKeepsNoPlace(t *testing.T) {
	t.Parallel()
	a := NewAdmission(nil)
	for n := range 10_000 {
		_ = panics.Catch(func() error {
			w, err := a.Begin(Normal)
			if err != nil {
				t.Fatal(err)
			}
			defer w.End(n%2 == 0)
			panic("oh")
		})
	}
	if a.running.Load() != 0 || a.limiter.Inflight() != 0 {
		t.Errorf("%d run, %d of them in the limiter", a.running.Load(), a.limiter.Inflight())
	}
}
