package guard

import (
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Priority tells which work is refused first while there is too much of it.
type Priority int

// Low work is reads that no cache keeps, such as lists. Normal is orders to come, and reads of one row that no cache has now. Urgent is what is about an
// order that is there: payments, cancels, shipments.
const (
	Low Priority = iota
	Normal
	Urgent
	priorities
)

var priorityNames = [priorities]string{"low", "normal", "urgent"}

// share is the part of the limit up to which work of a priority begins during an overload.
var share = [priorities]float64{0.55, 0.8, 1.2}

const (
	// leastLimit, firstLimit and mostLimit bound the limit of an overload: a full batch of commands, and what fills several processes of PostgreSQL.
	leastLimit, firstLimit, mostLimit = 64, 64, 512
	// roomFor is how many may run at once as long as nobody is refused: two full batches, and a third that waits.
	roomFor = 192
	// burst is how much may run at once for burstFor: the queue of commands takes as much.
	burst    = 1024
	burstFor = 300 * time.Millisecond
	// calmAfter is how long few or none must be refused for the end of an overload; few is one of fewOf questions.
	calmAfter = time.Second
	fewOf     = 10
	// probeAfter is after how many seconds of an overload all are let in again, up to the room: clients that ask again at once hide how many they are.
	probeAfter = 10
)

// Admission keeps the work that goes to the databases down to what they do in good time. Its limit follows the time that commands take (failsafe-go's adaptive
// limiter). A burst is let through: it waits in the queues behind. An overload, of more than burstFor, has the work refused that is above the limit, the least
// urgent first. A nil Admission admits all. Safe for concurrent use.
type Admission struct {
	limiter  adaptivelimiter.AdaptiveLimiter[any]
	running  atomic.Int64 // admitted and not done
	above    atomic.Int64 // since when running has been above its room, in ns of the clock; 0: it is not
	overload atomic.Int64 // since when questions of an overload are counted, in ns of the clock; 0: there is none
	asked    atomic.Int64 // since then
	refused  atomic.Int64 // of them
	seconds  atomic.Int64 // of overload
	probing  atomic.Int64 // until when more than the room is an overload at once, in ns of the clock
	start    time.Time
	shed     [priorities]prometheus.Counter
}

// NewAdmission returns an Admission. registry may be nil.
func NewAdmission(registry prometheus.Registerer) *Admission {
	a := &Admission{start: time.Now(), limiter: adaptivelimiter.NewBuilder[any]().WithLimits(leastLimit, mostLimit, firstLimit).Build()}
	m := promauto.With(registry)
	m.NewGaugeFunc(prometheus.GaugeOpts{Name: "ordergate_admission_limit", Help: "Work that may run at once during an overload."},
		func() float64 { return float64(a.limiter.Limit()) })
	m.NewGaugeFunc(prometheus.GaugeOpts{Name: "ordergate_admission_running", Help: "Commands, and reads of a database, that run."},
		func() float64 { return float64(a.running.Load()) })
	shed := m.NewCounterVec(prometheus.CounterOpts{Name: "ordergate_shed_total", Help: "Requests that were refused in an overload, by priority."}, []string{"priority"})
	for p, name := range priorityNames {
		a.shed[p] = shed.WithLabelValues(name)
	}
	return a
}

// errShed refuses work in an overload. It has no cause: the log takes its lines at least cost.
var errShed = apierr.E(errcode.RATE003)

// Check refuses with RATE_003 what Begin would refuse now. It is for a request of which nothing was read yet.
func (a *Admission) Check(p Priority) error {
	if a == nil || !a.full(p, a.running.Load()+1) {
		return nil
	}
	a.asked.Add(1) // what is not refused asks again
	return a.refuse(p)
}

// Begin admits work, or refuses it with RATE_003. The work ends with End of what it returns.
func (a *Admission) Begin(p Priority) (Work, error) {
	if a == nil {
		return Work{}, nil
	}
	a.asked.Add(1)
	if a.full(p, a.running.Add(1)) {
		a.running.Add(-1)
		return Work{}, a.refuse(p)
	}
	permit, _ := a.limiter.TryAcquirePermit()
	return Work{a, permit}, nil
}

func (a *Admission) now() int64 { return int64(time.Since(a.start)) + 1 }

// full tells whether so many are too many, for a priority.
func (a *Admission) full(p Priority, running int64) bool {
	limit := float64(a.limiter.Limit())
	room := max(roomFor, limit)
	if float64(running) <= room && a.above.Load() != 0 {
		a.above.Store(0)
	}
	if a.overload.Load() != 0 && a.overloaded(a.now()) {
		if float64(running) <= share[p]*limit {
			return false
		}
		a.refused.Add(1)
		return true
	}
	if float64(running) <= room {
		return false
	}
	now := a.now()
	since := a.above.Load()
	if since == 0 {
		a.above.CompareAndSwap(0, now)
		since = now
	}
	relapse := now < a.probing.Load()
	if (relapse || now-since > int64(burstFor)) && a.overload.CompareAndSwap(0, now) {
		a.asked.Store(0)
		a.refused.Store(0)
	}
	return relapse || running > burst && p != Urgent || now-since > int64(burstFor) // the queue has places for urgent commands
}

// overloaded tells whether there is an overload. It ends when there was nobody to refuse for a while.
func (a *Admission) overloaded(now int64) bool {
	since := a.overload.Load()
	if since == 0 {
		return false
	}
	if now-since <= int64(calmAfter) {
		return true
	}
	few := a.refused.Load()*fewOf < a.asked.Load() || now-since > 2*int64(calmAfter) // nobody asked for as long
	probe := !few && (a.seconds.Load()+1)%probeAfter == 0
	next := now
	if few || probe {
		next = 0
	}
	if a.overload.CompareAndSwap(since, next) {
		if !few {
			a.seconds.Add(1)
		}
		if probe {
			a.probing.Store(now + int64(calmAfter))
		}
		a.asked.Store(0)
		a.refused.Store(0)
	}
	return next != 0
}

func (a *Admission) refuse(p Priority) error {
	a.shed[p].Inc()
	return errShed
}

// Work is admitted work.
type Work struct {
	of     *Admission
	permit adaptivelimiter.Permit // nil: it was let through above the limit
}

// End ends the work. timed: the time that it took tells of the databases.
func (w Work) End(timed bool) {
	switch {
	case w.of == nil:
		return
	case w.permit == nil:
	case timed:
		w.permit.Record()
	default:
		w.permit.Drop()
	}
	w.of.running.Add(-1)
}
