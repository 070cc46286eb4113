package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/token"
)

const (
	measureEvery = 250 * time.Millisecond // of each replica
	measureFor   = 400 * time.Millisecond // a replica that does not tell its position within this time gets no reads
	reconnectFor = time.Second            // a replica that is back is noticed after this time at the latest
	measuredFor  = 2 * time.Second        // a measurement that is older says nothing: the loop stands still
	lagLimit     = time.Second            // a replica that is further behind than another one waits until the others refuse
	primaryFor   = 3 * time.Second        // so long after an answer of the primary no standby knows of a failover that we do not
)

// ErrPromoted is of a replica that is a primary on a timeline which the primary does not have: it was promoted, perhaps by mistake.
var ErrPromoted = errors.New("query: it is a primary of its own, on a timeline that our primary does not have")

var errAhead = errors.New("query: it is on a timeline that our primary does not have")

// watermark is what the last measurement of a replica found. Reads do not trust it: each reads the replica's position beside its row.
type watermark struct {
	querydb.WatermarkRow

	at     time.Time
	before int64 // the position that the replica had lagLimit earlier
	err    error // it could not be measured, or is not believed
}

// place says when a replica is asked.
type place int

const (
	inTurn       place = iota // it has reached the token, or was never measured
	behindToken               // the freshest first
	lagging                   // another one is more than lagLimit ahead
	disconnected              // it may answer if the primary is away
	leftOut                   // never
)

// FollowReplicas measures each replica every 250 ms until ctx ends, each on a connection of its own, so that neither a pool that is full of
// reads nor another replica that is silent delays it. Without it all replicas are asked in turn.
func (q *Queries) FollowReplicas(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range q.replicas {
		all.Go(func() {
			defer panics.Sync(q.cfg.Log)
			q.followReplica(ctx, s)
		})
	}
	all.Wait()
}

func (q *Queries) followReplica(ctx context.Context, s *server) {
	m := meter{config: s.pool.Config()}
	defer m.close(ctx)
	var last watermark
	for tick := time.Tick(measureEvery); ; {
		row, reconnected, err := m.measure(ctx)
		if ctx.Err() != nil {
			return
		}
		w := watermark{at: time.Now(), err: err}
		if err == nil {
			w = m.note(row, w.at)
			w.err = q.believe(s, w.Standby, uint32(w.Timeline))
		}
		if reconnected {
			s.guard.CloseBreaker() // it opened while the server was away
		}
		s.watermark.Store(&w)
		switch {
		case w.err != nil && last.err == nil:
			q.cfg.Log.Warn("a replica is left out", zap.String("replica", s.name), zap.Error(w.err))
		case w.err == nil && last.err != nil:
			q.cfg.Log.Info("a replica is used again", zap.String("replica", s.name))
		}
		last = w
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
	}
}

// meter measures one replica.
type meter struct {
	config   *pgxpool.Config
	conn     *pgx.Conn   // nil: it could not be measured
	history  []watermark // those of the last lagLimit, and one before
	caughtUp time.Time   // when it last had replayed all that it received
}

// note makes the watermark of a row. A replica is behind for no longer than since it had replayed all that it received: after a quiet
// minute the age of the last transaction is a minute for the moment that the next one takes.
func (m *meter) note(row querydb.WatermarkRow, at time.Time) watermark {
	w := watermark{WatermarkRow: row, at: at}
	if w.Lag == 0 {
		m.caughtUp = at
	} else if !m.caughtUp.IsZero() {
		w.Lag = min(w.Lag, at.Sub(m.caughtUp).Seconds())
	}
	if len(m.history) > 0 && m.history[0].Timeline != w.Timeline {
		m.history = nil
	}
	m.history = append(m.history, w)
	for len(m.history) > 1 && at.Sub(m.history[1].at) >= lagLimit {
		m.history = m.history[1:]
	}
	if at.Sub(m.history[0].at) >= lagLimit {
		w.before = m.history[0].Lsn
	}
	return w
}

// measure asks for the watermark. A connection that the server ended while it was idle says nothing of the server: another one is made.
func (m *meter) measure(ctx context.Context) (row querydb.WatermarkRow, reconnected bool, err error) {
	kept := m.conn != nil
	if !kept {
		limited, cancel := context.WithTimeout(ctx, reconnectFor)
		defer cancel()
		if m.conn, err = connect(limited, m.config); err != nil {
			m.conn = nil
			return row, false, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, measureFor)
	defer cancel()
	if row, err = querydb.New(m.conn).Watermark(limited); err == nil {
		return row, !kept, nil
	}
	m.close(ctx)
	if kept && limited.Err() == nil {
		return m.measure(ctx)
	}
	return row, false, err
}

func (m *meter) close(ctx context.Context) {
	if m.conn != nil {
		disconnect(ctx, m.conn)
		m.conn = nil
	}
}

// choose lists the replicas to ask for a token, in their order.
func (q *Queries) choose(t token.Token) []*server {
	type candidate struct {
		*server

		place place
		lsn   int64
	}
	all, turns := make([]candidate, 0, len(q.replicas)), 0
	for _, s := range q.replicas {
		c := candidate{server: s, place: q.place(s, t)}
		if c.place == leftOut {
			continue
		}
		if c.place == inTurn {
			turns++
		} else {
			c.lsn = s.watermark.Load().Lsn
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(b.lsn, a.lsn)) })
	chosen := make([]*server, len(all))
	first := 0
	if turns > 0 {
		first = int(q.nextReplica.Add(1) % uint32(turns))
	}
	for i, c := range all {
		if i < turns {
			c = all[(first+i)%turns]
		}
		chosen[i] = c.server
	}
	return chosen
}

func (q *Queries) place(s *server, t token.Token) place {
	w := s.watermark.Load()
	switch {
	case w == nil:
		return inTurn
	case !q.usable(w):
		return leftOut
	case w.Disconnected:
		return disconnected
	}
	for _, other := range q.replicas {
		if o := other.watermark.Load(); o != nil && q.usable(o) && !o.Disconnected && o.before > w.Lsn {
			return lagging // positions tell it, not times: an idle primary makes no replica late
		}
	}
	if uint64(w.Lsn) < t.LSN {
		return behindToken
	}
	return inTurn
}

// usable tells that a replica was measured just now, on the present timeline.
func (q *Queries) usable(w *watermark) bool {
	return w.err == nil && time.Since(w.at) < measuredFor && uint32(w.Timeline) >= q.timeline()
}

// believe keeps the highest timeline of those that servers report. The primary decides: a replica's word for a higher one does not count while
// the primary answers, nor ever that of a replica which is a primary itself, because one that is promoted by mistake would else end all
// reads. After a failover our connections to the primary end, and the next one raises the timeline; until then a standby's word counts.
func (q *Queries) believe(s *server, standby bool, timeline uint32) error {
	known := q.timeline()
	switch {
	case s.tier == tierPrimary && (standby || timeline < known):
		return errTimeline
	case s.tier == tierPrimary:
		q.primaryAt.Store(q.cfg.Now().UnixNano())
	case timeline > known && !standby:
		return ErrPromoted
	case timeline > known && q.cfg.Now().UnixNano()-max(q.primaryAt.Load(), q.markedAt.Load()) < primaryFor.Nanoseconds():
		return errAhead
	}
	q.noteTimeline(timeline)
	return nil
}

// AskReplica calls ask with the pool of a replica that is not left out, as a read would, and after a failure with that of the next one. It takes
// one of the places that reads have.
func (q *Queries) AskReplica(ctx context.Context, ask func(context.Context, *pgxpool.Pool) error) (err error) {
	err = errors.New("query: no replica can be asked")
	chosen := q.choose(token.Token{})
	for i, s := range chosen {
		do := s.guard.Do
		if i+1 < len(chosen) {
			do = s.guard.Try
		}
		if err = do(ctx, func(ctx context.Context) error { return ask(ctx, s.pool) }); err == nil {
			return nil
		}
	}
	return err
}

// ReplicaLag is how many seconds a replica was behind when it was last measured, by its number in the configuration. receives: it gets what
// the primary writes. The error tells why it is left out: no read asks it.
func (q *Queries) ReplicaLag(i int) (seconds float64, receives bool, err error) {
	w := q.replicas[i].watermark.Load()
	switch {
	case w == nil || time.Since(w.at) >= measuredFor:
		return 0, false, fmt.Errorf("query: %s is not measured", q.replicas[i].name)
	case w.err != nil:
		return 0, false, w.err
	case !q.usable(w):
		return 0, false, errTimeline
	}
	return w.Lag, !w.Disconnected, nil
}

// registerUse makes a metric of each replica's place.
func (q *Queries) registerUse(registry prometheus.Registerer) {
	for _, s := range q.replicas {
		promauto.With(registry).NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ordergate_replica_used", Help: "1: reads without a token are spread over the replica; 0: it does not answer, is disconnected or lags.",
			ConstLabels: prometheus.Labels{"replica": s.name},
		}, func() float64 {
			if q.place(s, token.Token{}) == inTurn {
				return 1
			}
			return 0
		})
	}
}
