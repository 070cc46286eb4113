package app

import "testing"

// TestTwoWorkersMaintain: what another worker makes or deletes at this moment is left to it, and is no failure.
func TestTwoWorkersMaintain(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	g.stopWork()
	for _, old := range []string{
		`INSERT INTO idempotency_keys (account, mode, operation, key, request_hash, status, code, content_type, etag, location, body, created_at)
		 VALUES (1, 'test', 'placeOrder', 'old-key', '', 201, '', '', '', '', '', now() - interval '3 days')`,
		`INSERT INTO inbox (consumer, message_id) VALUES ('old', uuidv7_lower_bound(now() - interval '8 days'))`,
		`INSERT INTO provider_callbacks (provider, event_id, operation_key, kind, status, parked, body, received_at)
		 VALUES ('psp', 'old', '', '', '', false, '', now() - interval '31 days')`,
	} {
		_, err := g.db.Pool.Exec(t.Context(), old)
		must(t, err)
	}
	left := func() int {
		return g.count("idempotency_keys WHERE key = 'old-key'") + g.count("inbox WHERE consumer = 'old'") + g.count("provider_callbacks WHERE event_id = 'old'")
	}
	other, err := g.db.Pool.Begin(t.Context())
	must(t, err)
	for _, does := range []string{
		"SELECT ensure_partitions()", "DELETE FROM idempotency_keys WHERE key = 'old-key'", "DELETE FROM inbox WHERE consumer = 'old'", "DELETE FROM provider_callbacks WHERE event_id = 'old'",
	} {
		_, err = other.Exec(t.Context(), does)
		must(t, err)
	}
	if _, err = g.components.maintain(t.Context()); err != nil || left() != 3 {
		t.Errorf("beside another worker: %v, %d are left", err, left())
	}
	must(t, other.Rollback(t.Context()))
	if _, err = g.components.maintain(t.Context()); err != nil || left() != 0 {
		t.Errorf("alone: %v, %d are left", err, left())
	}
}
