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
	tel, err := telemetry.New(ctx, func(string) string { return "" }, zapcore.ErrorLevel, zapcore.AddSync(t.Output()))
	must(t, err)
	// The primary stands for a replica, too: a standby refuses every write anyway.
	c, err := Assemble(ctx, Config{PrimaryURL: db.PrimaryURL, ReplicaURLs: []string{db.PrimaryURL, db.ReplicaURL}, MaxConnections: 4, Secret: "secret"}, tel)
	must(t, err)
	defer c.Close()
	const insert = `INSERT INTO inbox (consumer, message_id) VALUES ('c', gen_random_uuid())`
	for i, pool := range append(c.replicas, c.reads) {
		_, err := pool.Exec(ctx, insert)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != pg.ReadOnlyTransaction {
			t.Errorf("pool %d: %v", i, err)
		}
	}
	if _, err = c.Primary.Exec(ctx, insert); err != nil {
		t.Errorf("the write side: %v", err)
	}
	c.timeline.Store(0)
	c.reads.Reset()
	must(t, c.reads.Ping(ctx))
	if c.timeline.Load() == 0 {
		t.Error("a new connection of the readers did not tell its timeline")
	}
	c.timeline.Store(9)
	c.reads.Reset()
	if err = c.reads.Ping(ctx); err == nil {
		t.Error("a server on an older timeline is read from as the primary")
	}
}
