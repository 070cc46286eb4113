package app

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/internal/telemetry"
)

// TestThePoolsOfTheReadSideCannotWrite: by PostgreSQL's word, and the look at a new connection to the primary still works.
func TestThePoolsOfTheReadSideCannotWrite(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pgtest.New(t)
	tel, err := telemetry.New(ctx, "error", zapcore.AddSync(t.Output()))
	must(t, err)
	// The primary stands for a replica, too: a standby refuses every write anyway.
	p, err := newParts(ctx, Config{PrimaryURL: db.PrimaryURL, ReplicaURLs: []string{db.PrimaryURL, db.ReplicaURL}, MaxConnections: 4, Secret: "secret"}, tel)
	must(t, err)
	defer p.close()
	const insert = `INSERT INTO inbox (consumer, message_id) VALUES ('c', gen_random_uuid())`
	for i, pool := range append(p.replicas, p.reads) {
		_, err := pool.Exec(ctx, insert)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != pg.ReadOnlyTransaction {
			t.Errorf("pool %d: %v", i, err)
		}
	}
	if _, err = p.primary.Exec(ctx, insert); err != nil {
		t.Errorf("the write side: %v", err)
	}
	p.timeline.Store(0)
	p.reads.Reset()
	must(t, p.reads.Ping(ctx))
	if p.timeline.Load() == 0 {
		t.Error("a new connection of the readers did not tell its timeline")
	}
	p.timeline.Store(9)
	p.reads.Reset()
	if err = p.reads.Ping(ctx); err == nil {
		t.Error("a server on an older timeline is read from as the primary")
	}
}
