package app

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/ordergate/ordergate/internal/pgtest"
)

// readyz asks for the health of a worker.
func (g *gateway) readyz() (status int, h health) {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.components.readyz(w, httptest.NewRequest("GET", "/readyz", nil), func() error { return nil }, true)
	must(g.t, json.Unmarshal(w.Body.Bytes(), &h))
	return w.Code, h
}

// awaitReady polls until the status and what is degraded are these. The answer is always 200.
func (g *gateway) awaitReady(status string, degraded ...string) {
	g.t.Helper()
	until(g.t, status, func() bool {
		code, h := g.readyz()
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
