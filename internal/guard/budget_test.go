package guard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// TestRetriesAreAShare: a fifth of what was tried at first, and the floor, however much fails.
func TestRetriesAreAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		b := NewRetryBudget("part", 0.25, 20, registry)
		retries := func(executions int) (n int) {
			for range executions {
				b.Earn(1)
				for range 3 { // all fail, and each is tried three times more
					if b.Spend(1) {
						n++
					}
				}
			}
			return n
		}
		if n := retries(1000); n != 20+250 {
			t.Errorf("%d retries of 1000 executions", n)
		}
		<-time.After(refillIn / 2)
		if n := retries(0) + spend(b, 100); n != 10 {
			t.Errorf("%d of the floor after half of its time", n)
		}
		<-time.After(time.Hour)
		if n := spend(b, 100); n != 20 {
			t.Errorf("%d of the floor after an hour", n)
		}
		b.Earn(1_000_000)
		if n := spend(b, 1000); n != 8*20 {
			t.Errorf("%d are kept of many", n)
		}
		b.Earn(40)
		if b.Spend(11) || !b.Spend(10) {
			t.Error("a batch is tried again as a whole or not at all")
		}
		if got := metrics(t, registry); got != "retries_total 0 0 retry_budget 0" {
			t.Error(got)
		}
		if tried, refused := value(t, b.tried), value(t, b.refused); tried != 270+10+20+160+10 || refused != 3000-270+90+80+840+11 {
			t.Errorf("%v tried, %v refused", tried, refused)
		}
	})
}

func spend(b *RetryBudget, tries int) (n int) {
	for range tries {
		if b.Spend(1) {
			n++
		}
	}
	return n
}

func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
