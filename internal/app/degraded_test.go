package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/pgtest"
	"github.com/ordergate/ordergate/sql"
)

// readyz asks for the health of a worker, or of an API alone.
func (g *gateway) readyz(worker bool) (status int, h health) {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.components.readyz(w, httptest.NewRequest("GET", "/readyz", nil), func() error { return nil }, worker)
	must(g.t, json.Unmarshal(w.Body.Bytes(), &h))
	return w.Code, h
}

// awaitReady polls until the status and what is degraded are these. The answer is always 200.
func (g *gateway) awaitReady(status string, degraded ...string) {
	g.t.Helper()
	until(g.t, status, func() bool {
		code, h := g.readyz(true)
		if code != 200 || len(h.Faults) > 0 {
			g.t.Fatalf("%d %+v", code, h)
		}
		return h.Status == status && slices.Equal(h.Degraded, degraded)
	})
}

// TestNoTierIsRequired: without Redis, without replicas and without both, reads go on and the process stays in the balancer.
func TestNoTierIsRequired(t *testing.T) {
	t.Parallel()
	var redis, replica *pgtest.TCPProxy
	g := startGateway(t, func(c *Config, db *pgtest.DB) {
		redis, c.RedisURL = pgtest.Proxy(t, db.RedisURL)
		replica, c.ReplicaURLs[0] = pgtest.Proxy(t, db.ReplicaURL)
	})
	g.stock("A", 10)
	id := g.do("POST", "/v1/orders", draft("A", 1, "pm_ok"), "Prefer", "wait=10").body.ID
	const noRedis, noReplica = "redis does not answer", "no replica is less than 10 s behind"
	reads := func(status string, degraded ...string) {
		t.Helper()
		g.awaitReady(status, degraded...)
		for _, path := range []string{"/v1/orders/" + id, "/v1/orders/" + id + "/saga", "/v1/orders", "/v1/products/A", "/v1/inventory/A"} {
			a := g.do("GET", path, nil)
			tier := a.header.Get("X-Served-By")
			if a.status != 200 || slices.Contains(degraded, noRedis) && tier == "redis" || slices.Contains(degraded, noReplica) && tier == "replica" {
				t.Errorf("%s, %v: %s is %d by %s: %s", status, degraded, path, a.status, tier, a.raw)
			}
		}
	}
	for name, harm := range map[string]func(*pgtest.TCPProxy){"cut": (*pgtest.TCPProxy).Cut, "silent": (*pgtest.TCPProxy).Freeze} {
		t.Run(name, func(t *testing.T) {
			reads("ready")
			harm(redis)
			reads("degraded", noRedis)
			harm(replica)
			reads("degraded", noReplica, noRedis)
			redis.Heal()
			reads("degraded", noReplica)
			replica.Heal()
			reads("ready")
		})
	}
	redis.Cut() // else the end would wait for them
	replica.Cut()
}

// TestLimitsThatAreNotSharedAreSeen: Redis answers, but takes no part in the limits of keys.
func TestLimitsThatAreNotSharedAreSeen(t *testing.T) {
	t.Parallel()
	r := pgtest.NewRedis(t)
	r.Do("ACL SETUSER few on >few ~* &* +@all -zadd")
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.RedisURL = "redis://few:few@" + r.Addr })
	g.awaitReady("degraded", "the limits of keys are not shared")
	r.Do("ACL SETUSER few +zadd")
	g.awaitReady("ready")
}

// TestTheAPIKnowsWhoSharesTheLimits before its first request, or that Redis is away: a process that starts gives no key its limit anew.
func TestTheAPIKnowsWhoSharesTheLimits(t *testing.T) {
	t.Parallel()
	r := pgtest.NewRedis(t)
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.RedisURL = r.URL() })
	r.Freeze()
	c := g.assemble()
	_, err := c.API(nil)
	r.Thaw()
	must(t, err)
	select {
	case <-c.limits.Load().Joined():
	default:
		t.Error("it does not know yet")
	}
}

// TestAnotherKindOfRedisIsSeen: the tier is missing, and an operator is told which scheme the URL needs.
func TestAnotherKindOfRedisIsSeen(t *testing.T) {
	t.Parallel()
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.RedisURL = pgtest.NewRedisCluster(t).Nodes[0].URL() })
	g.stock("A", 10)
	g.awaitReady("degraded", "ORDERGATE_REDIS_URL names a node of a Cluster: use redis+cluster://")
	until(t, "the product is read", func() bool { return g.do("GET", "/v1/products/A", nil).status == 200 }) // a replica may be behind
}

// TestAReplicaThatIsPromotedIsSeen: reads go on from the primary, and an operator is told why.
func TestAReplicaThatIsPromotedIsSeen(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts servers")
	}
	dir, err := devstack.Scratch(t.Context())
	must(t, err)
	stack, err := devstack.Start(t.Context(), devstack.Config{Dir: dir, Replicas: []devstack.Replica{{Name: "replica"}}})
	must(t, err)
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() { _, _ = stack.Stop(ctx), devstack.Remove(ctx, dir) })
	must(t, sql.Migrate(t.Context(), stack.PrimaryURL))
	g := startGateway(t, func(c *Config, _ *pgtest.DB) { c.PrimaryURL, c.ReplicaURLs = stack.PrimaryURL, stack.ReplicaURLs })
	g.broken = true // the database is another one than that which would be verified
	g.awaitReady("ready")
	c, err := pgx.Connect(t.Context(), stack.ReplicaURLs[0])
	must(t, err)
	_, err = c.Exec(t.Context(), "SELECT pg_promote()")
	must(t, errors.Join(err, c.Close(ctx)))
	g.awaitReady("degraded", "replica_1 is a primary of its own", "no replica is less than 10 s behind")
	if a := g.do("GET", "/v1/orders", nil); a.status != 200 || a.header.Get("X-Served-By") != "primary" {
		t.Errorf("%d by %s: %s", a.status, a.header.Get("X-Served-By"), a.raw)
	}
}

// TestAReplicaThatMayNotBeReadServesNoReads: it answers, on a timeline that a failover has ended.
func TestAReplicaThatMayNotBeReadServesNoReads(t *testing.T) {
	t.Parallel()
	var primary *pgtest.TCPProxy
	g := startGateway(t, func(c *Config, db *pgtest.DB) { primary, c.PrimaryURL = pgtest.Proxy(t, db.PrimaryURL) })
	g.broken = true
	g.stopWork()
	g.awaitReady("ready")
	g.components.timeline.Store(9)
	until(t, "it is left out", func() bool {
		_, h := g.readyz(false)
		return slices.Contains(h.Degraded, "no replica is less than 10 s behind") && h.LagSeconds[0] == -1
	})
	primary.Cut()
	until(t, "nobody can be read", func() bool {
		code, h := g.readyz(false)
		return code == 503 && slices.Contains(h.Faults, "the primary does not answer")
	})
}

// TestAKeyThatNobodyUsedWhileThePrimaryIsAway: its first request is answered by a replica, which knows the key as well.
func TestAKeyThatNobodyUsedWhileThePrimaryIsAway(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*pgtest.TCPProxy){"cut": (*pgtest.TCPProxy).Cut, "silent": (*pgtest.TCPProxy).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var primary, replica *pgtest.TCPProxy
			g := startGateway(t, func(c *Config, db *pgtest.DB) {
				primary, c.PrimaryURL = pgtest.Proxy(t, db.PrimaryURL)
				replica, c.ReplicaURLs[0] = pgtest.Proxy(t, db.ReplicaURL)
			})
			g.stopWork()
			run := commandLine(t, Config{PrimaryURL: g.db.PrimaryURL, Secret: g.cfg.Secret})
			made, err := run("keys create -account 1")
			must(t, err)
			fields := strings.Fields(made)
			key := fields[slices.IndexFunc(fields, func(s string) bool { return strings.HasPrefix(s, "og_") })]
			until(t, "the replica has the key", func() bool {
				var n int
				must(t, g.components.replicas[0].QueryRow(t.Context(), "SELECT count(*) FROM api_keys").Scan(&n))
				return n == 1
			})
			harm(primary)
			defer primary.Cut() // else the end would wait for it
			for i := range 30 {
				a := g.do("GET", "/v1/orders", nil, "Authorization", "Bearer "+key)
				for tries := 0; a.status == 503 && tries < 5; tries++ { // a busy machine may refuse
					a = g.do("GET", "/v1/orders", nil, "Authorization", "Bearer "+key)
				}
				if a.status != 200 || a.header.Get("X-Served-By") != "replica" {
					t.Errorf("%d by %s: %s", a.status, a.header.Get("X-Served-By"), a.raw)
				}
				if a = g.do("GET", "/v1/orders", nil, "Authorization", fmt.Sprintf("Bearer og_test_made_up_key_%04d", i)); a.body.Code != "SYS_002" {
					t.Errorf("a made-up key: %d %s", a.status, a.raw)
				}
			}
			const noPrimary = "the primary does not answer"
			if code, h := g.readyz(true); code != 503 || !slices.Contains(h.Faults, noPrimary) {
				t.Errorf("a worker: %d %+v", code, h)
			}
			if code, h := g.readyz(false); code != 200 || len(h.Faults) > 0 || !slices.Contains(h.Degraded, noPrimary) {
				t.Errorf("an API: %d %+v", code, h)
			}
			replica.Cut()
			until(t, "nobody can be read", func() bool {
				code, h := g.readyz(false)
				return code == 503 && slices.Contains(h.Faults, noPrimary)
			})
			primary.Heal()
			until(t, "a made-up key is refused", func() bool {
				return g.do("GET", "/v1/orders", nil, "Authorization", "Bearer og_test_made_up_key_last").body.Code == "AUTH_002"
			})
		})
	}
}
