package guard

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// RetryBudget bounds what is tried again at a remote part to a share of what is tried at first, so that repetitions do not multiply the load of a part that
// fails under it. Safe for concurrent use.
//
// It counts over time. failsafe-go's budget compares what is in flight at the moment: of the few transactions of batches a fifth is none, or all.
type RetryBudget struct {
	share, least, most float64
	mu                 sync.Mutex
	left               float64
	at                 time.Time // when left was counted
	tried, refused     prometheus.Counter
}

// refillIn is the time in which an empty budget has its least again.
const refillIn = 10 * time.Second

// NewRetryBudget returns a budget of a share of what is tried at first, and of least more, which it begins with and has again every 10 s with nothing else to do. It
// keeps at most eight times as much. registry may be nil.
func NewRetryBudget(part string, share float64, least uint, registry prometheus.Registerer) *RetryBudget {
	b := &RetryBudget{share: share, least: float64(least), most: 8 * float64(least), left: float64(least), at: time.Now()}
	m, labels := promauto.With(registry), prometheus.Labels{"part": part}
	m.NewGaugeFunc(prometheus.GaugeOpts{Name: "ordergate_retry_budget", Help: "Retries that may begin now.", ConstLabels: labels}, func() float64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refill()
		return b.left
	})
	retries := m.NewCounterVec(prometheus.CounterOpts{
		Name: "ordergate_retries_total", Help: "Repetitions after a failure of the part that began, or that the budget refused.", ConstLabels: labels,
	}, []string{"result"})
	b.tried, b.refused = retries.WithLabelValues("tried"), retries.WithLabelValues("refused")
	return b
}

// refill brings left up to the least, as time goes by. The caller holds mu.
func (b *RetryBudget) refill() {
	now := time.Now()
	if b.left < b.least {
		b.left = min(b.least, b.left+b.least*now.Sub(b.at).Seconds()/refillIn.Seconds())
	}
	b.at = now
}

// Earn counts what is tried at first.
func (b *RetryBudget) Earn(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	b.left = min(b.most, b.left+b.share*float64(n))
}

// Spend tells whether so many may be tried again: all of them, or none.
func (b *RetryBudget) Spend(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refill(); b.left < float64(n) {
		b.refused.Add(float64(n))
		return false
	}
	b.left -= float64(n)
	b.tried.Add(float64(n))
	return true
}
