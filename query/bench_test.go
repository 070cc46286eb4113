package query

import (
	"testing"
	"time"
)

// BenchmarkLRUHit is what most reads are.
func BenchmarkLRUHit(b *testing.B) {
	w := setup(b)
	p := w.process(withoutRedis)
	id := w.place(mine, time.Hour)
	_, t := p.write(mine, id)
	p.cfg.Now = time.Now
	p.entry(orders.row(mine, id, "")).value.Load().checked = time.Hour // never due
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if a, err := p.GetOrder(ctx, mine, id, t); err != nil || a.Tier != "lru" {
			b.Fatal(err, a.Tier)
		}
	}
}

func BenchmarkTiersBelow(b *testing.B) {
	w := setup(b)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	for want, p := range map[string]*process{
		"redis": w.process(), "replica": w.process(withoutRedis), "primary": w.process(withoutRedis, withoutReplicas),
	} {
		b.Run(want, func(b *testing.B) {
			p.write(mine, id)
			w.synced(w.ReplicaURL)
			b.ReportAllocs()
			for b.Loop() {
				p.lru.Remove(orders.row(mine, id, ""))
				if a, err := p.GetOrder(b.Context(), mine, id, anyToken); err != nil || a.Tier != want {
					b.Fatal(err, a.Tier)
				}
			}
		})
	}
}
