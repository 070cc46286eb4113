-- The provider's callbacks, and the comparison of its ledger with our payments.

-- name: TakeCallback :many
-- Stores a callback once: a repetition returns no row and changes nothing. Its payment is looked at in 2 s, when its call has its outcome by itself;
-- without a payment of ours it never is. The payment's calls that were sent before and have no outcome become due in half a second: one that is being
-- answered now ends before that. If it does not, its fence refuses the late result, as after a lease.
WITH taken AS (
    INSERT INTO provider_callbacks (provider, event_id, operation_key, kind, status, payment_id, parked, body, next_at)
    SELECT @provider::text, @event_id::text, @operation_key::text, @kind::text, @status::text, w.payment_id,
           NOT EXISTS (SELECT FROM payments p WHERE p.id = w.payment_id), @body::text, CASE WHEN w.payment_id IS NOT NULL THEN now() + interval '2 seconds' END
    FROM (SELECT NULLIF(@payment_id::uuid, '00000000-0000-0000-0000-000000000000'::uuid) AS payment_id) w
    ON CONFLICT DO NOTHING RETURNING payment_id, parked
), hastened AS (
    UPDATE payment_calls c SET next_at = now() + interval '500 milliseconds'
    FROM taken JOIN payments p ON p.id = taken.payment_id
    WHERE c.order_id = p.order_id AND c.account = p.account AND c.mode = p.mode AND c.payment_id = p.id
      AND c.next_at > now() + interval '500 milliseconds' AND c.tries > 0
)
SELECT parked FROM taken;

-- name: LockCallbacks :many
-- Locks callbacks that are due, those that another worker has left out.
SELECT provider, event_id, operation_key, kind, status, payment_id, (received_at < now() - interval '10 minutes')::boolean AS old FROM provider_callbacks
WHERE next_at <= now() ORDER BY next_at LIMIT @max_callbacks::integer FOR UPDATE SKIP LOCKED;

-- name: PostponeCallbacks :exec
-- Sets when callbacks are due again, after the given seconds; negative: never.
UPDATE provider_callbacks c SET next_at = CASE WHEN w.after >= 0 THEN now() + make_interval(secs => w.after) END
FROM (SELECT unnest(@providers::text[]) AS provider, unnest(@event_ids::text[]) AS event_id, unnest(@after_seconds::double precision[]) AS after) w
WHERE c.provider = w.provider AND c.event_id = w.event_id;

-- name: PurgeCallbacks :execrows
-- Deletes callbacks older than 30 days, at most 1,000 at a time, without those that another worker deletes.
DELETE FROM provider_callbacks c USING (
    SELECT provider, event_id FROM provider_callbacks WHERE received_at < now() - interval '30 days' ORDER BY received_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
) old
WHERE c.provider = old.provider AND c.event_id = old.event_id;

-- name: PaymentStates :many
-- Payments by their ids alone. open: a call has no outcome. voiding: the only one of these is a void that the provider did not do at its
-- first request.
SELECT p.id, p.order_id, p.status, COALESCE(c.open, false)::boolean AS open, COALESCE(c.voiding, false)::boolean AS voiding
FROM (SELECT unnest(@ids::uuid[]) AS id) w
JOIN payments p ON p.id = w.id
LEFT JOIN LATERAL (
    SELECT true AS open, bool_and(c.operation = 'void' AND c.in_doubt) AS voiding FROM payment_calls c
    WHERE c.order_id = p.order_id AND c.account = p.account AND c.mode = p.mode AND c.payment_id = p.id AND c.next_at IS NOT NULL
    HAVING count(*) > 0
) c ON true;

-- name: ClaimSweep :one
-- Claims the sweep of a provider's ledger for 30 s, the lease, if it is due, or at once on a new timeline of the database. Its position is
-- as old as the rest of the database, so that it leads to all that a failover lost; 100,000 entries before it are compared again for caution.
-- While it is not due it locks nothing: all workers ask each second.
INSERT INTO ledger_sweeps AS s (provider, timeline, next_at)
SELECT @provider::text, w.timeline, now() + interval '30 seconds'
FROM (SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline) w
WHERE NOT EXISTS (
    SELECT FROM ledger_sweeps n
    WHERE n.provider = @provider::text AND n.next_at > now() AND n.next_at <= now() + interval '5 minutes' AND n.timeline = w.timeline
)
ON CONFLICT (provider) DO UPDATE
SET position = CASE WHEN s.timeline = excluded.timeline THEN s.position ELSE GREATEST(0, s.position - 100000) END,
    timeline = excluded.timeline, next_at = excluded.next_at, fence = s.fence + 1
WHERE s.next_at <= now() OR s.next_at > now() + interval '5 minutes' OR s.timeline <> excluded.timeline
RETURNING s.position, s.fence;

-- name: SaveSweep :execrows
-- Keeps how far the sweep is and sets the end of its lease or, at its end, when the next one is due. 0 rows: another worker has it, or the
-- timeline is new and what was compared before does not count.
UPDATE ledger_sweeps SET position = @position, next_at = now() + make_interval(secs => @seconds::double precision)
WHERE provider = @provider AND fence = @fence
  AND timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint;
