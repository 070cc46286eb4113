package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

func TestEachTestHasItsOwnDatabase(t *testing.T) {
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			db := New(t)
			mustExec(t, db, "CREATE TABLE mine (id int)")
			mustExec(t, db, "INSERT INTO mine VALUES (1)")
			awaitRow(t, db.ReplicaURL)
		})
	}
}

func TestLaggingReplicaIsLate(t *testing.T) {
	t.Parallel()
	db := New(t)
	url := db.LaggingURL(t)
	mustExec(t, db, "CREATE TABLE mine (id int, written timestamptz DEFAULT clock_timestamp())")
	mustExec(t, db, "INSERT INTO mine VALUES (1)")
	awaitRow(t, url)
	c, err := pgx.Connect(t.Context(), url)
	must(t, "connect", err)
	defer c.Close(t.Context())
	var late bool
	must(t, "compare the clocks", c.QueryRow(t.Context(), `SELECT delay > '0' AND clock_timestamp() - written >= delay
		FROM mine, (SELECT current_setting('recovery_min_apply_delay')::interval) AS s (delay)`).Scan(&late))
	if !late {
		t.Error("it shows a commit before its delay is over")
	}
}

type failing struct{ testing.TB }

func (failing) Helper()           {}
func (failing) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func TestWithoutAStackATestFailsAndSaysWhy(t *testing.T) {
	t.Setenv("ORDERGATE_TEST_PRIMARY", "")
	defer func() {
		if said := recover(); said != hint {
			t.Errorf("said %v", said)
		}
	}()
	New(failing{t})
}

func TestWithoutRedisServerATestFailsAndSaysWhy(t *testing.T) {
	t.Setenv("PATH", "")
	defer func() {
		if said := recover(); said != "this test needs redis-server: install Redis" {
			t.Errorf("said %v", said)
		}
	}()
	NewRedis(failing{t})
}

func TestDatabaseIsDroppedWithItsConnections(t *testing.T) {
	t.Parallel()
	var left *pgx.Conn
	t.Run("a test that leaves a connection", func(t *testing.T) {
		db := New(t)
		var err error
		left, err = pgx.Connect(t.Context(), db.PrimaryURL)
		must(t, "connect", err)
	})
	if err := left.Ping(t.Context()); err == nil {
		t.Error("still connected")
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	db := New(t)
	mustExec(t, db, "CREATE TABLE mine (id int)")
	proxy, url := Proxy(t, db.PrimaryURL)
	connect := func(t *testing.T) *pgx.Conn {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		must(t, "connect", err)
		t.Cleanup(func() { _ = c.Close(context.WithoutCancel(t.Context())) })
		return c
	}
	soon := func(t *testing.T) context.Context {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}

	t.Run("cut drops connections and refuses new ones, heal ends it", func(t *testing.T) {
		c := connect(t)
		proxy.Cut()
		if err := c.Ping(t.Context()); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		if _, err := pgx.Connect(t.Context(), url); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		proxy.Heal()
		must(t, "ping", connect(t).Ping(t.Context()))
	})
	t.Run("freeze lets nothing pass, heal lets it go on", func(t *testing.T) {
		c := connect(t)
		proxy.Freeze()
		if _, err := pgx.Connect(soon(t), url); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		answer := make(chan error)
		go func() { answer <- c.Ping(t.Context()) }()
		select {
		case err := <-answer:
			t.Error("answered", err)
		case <-time.After(100 * time.Millisecond):
		}
		proxy.Heal()
		must(t, "ping", <-answer)
	})
	t.Run("cut ends a freeze", func(t *testing.T) {
		c := connect(t)
		proxy.Freeze()
		proxy.Cut()
		if err := c.Ping(t.Context()); err == nil {
			t.Error("answered")
		}
		proxy.Heal()
	})
	t.Run("a commit is done and its caller does not know", func(t *testing.T) {
		for n := 1; n <= 20; n++ {
			c, other := connect(t), connect(t)
			sprung := proxy.CutAfter("commit")
			tx, err := c.Begin(t.Context())
			must(t, "begin", err)
			_, err = tx.Exec(t.Context(), "INSERT INTO mine VALUES (1)")
			must(t, "insert", err)
			if err = tx.Commit(t.Context()); err == nil {
				t.Fatal("answered")
			}
			<-sprung
			var rows int
			must(t, "count", db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM mine").Scan(&rows))
			if rows != n {
				t.Errorf("%d rows after %d commits", rows, n)
			}
			must(t, "ping of another connection", other.Ping(t.Context()))
		}
	})
	t.Run("it works for Redis too", func(t *testing.T) {
		proxy, url := Proxy(t, db.RedisURL)
		options, err := redis.ParseURL(url)
		must(t, "read the address", err)
		options.MaxRetries = -1
		client := redis.NewClient(options)
		defer client.Close()
		must(t, "ping", client.Ping(t.Context()).Err())
		sprung := proxy.CutAfter(db.RedisPrefix + "key")
		if err := client.Set(t.Context(), db.RedisPrefix+"key", "value", time.Minute).Err(); err == nil {
			t.Error("answered")
		}
		<-sprung
		if v, err := client.Get(t.Context(), db.RedisPrefix+"key").Result(); v != "value" {
			t.Error(v, err)
		}
		proxy.Cut()
		if err := client.Ping(t.Context()).Err(); err == nil {
			t.Error("answered")
		}
	})
}

func mustExec(t *testing.T, db *DB, sql string) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), sql)
	must(t, sql, err)
}

func awaitRow(t *testing.T, url string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	must(t, "connect", err)
	defer c.Close(t.Context())
	for deadline, tick := time.Now().Add(bound), time.Tick(5*time.Millisecond); ; <-tick {
		var n int
		if err = c.QueryRow(t.Context(), "SELECT count(*) FROM mine").Scan(&n); err == nil && n == 1 {
			return
		} else if time.Now().After(deadline) {
			t.Fatal("no row: ", err)
		}
	}
}
