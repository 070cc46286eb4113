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

// BenchmarkTiersBelow is a read that the LRU cannot answer, by the tier that does. Redis forgets an entry after redisFor, and on a busy machine it may be
// too late for a read: such a read is one of another tier. The entry is put again then, outside of the time that counts.
func BenchmarkTiersBelow(b *testing.B) {
	w := setup(b)
	id := w.place(mine, time.Hour)
	w.synced(w.ReplicaURL)
	for want, p := range map[string]*process{
		"redis": w.process(), "replica": w.process(withoutRedis), "primary": w.process(withoutRedis, withoutReplicas),
	} {
		b.Run(want, func(b *testing.B) {
			read := func() string {
				p.lru.Remove(orders.row(mine, id, ""))
				a, err := p.GetOrder(b.Context(), mine, id, anyToken)
				if err != nil {
					b.Fatal(err)
				}
				return a.Tier
			}
			put := func() {
				p.write(mine, id)
				w.synced(w.ReplicaURL)
				w.until(func() bool { return read() == want })
			}
			put()
			reads, others := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				if reads++; read() == want {
					continue
				}
				b.StopTimer()
				if others++; others > 10+reads/100 {
					b.Fatalf("%d of %d reads had another tier", others, reads)
				}
				put()
				b.StartTimer()
			}
		})
	}
}
