-- Stock. It follows from products, inventory events and reservations.

-- name: StaleStock :many
-- The skus of which the row is missing, or differs in a column other than rev from what follows. One statement sees one snapshot, in
-- which a row and all that it follows from belong together. sources: of how many rows it follows; 0: it should not exist. updates: of the
-- row there were at most so many, each by an event, a change of a reservation or a change of the product. impossible: only those of which
-- no row can be.
SELECT e.account, e.mode, e.sku, e.sources, e.on_hand, e.reserved, COALESCE(p.low_stock_at, -1)::bigint AS low_at,
       COALESCE(h.sequence, 0)::bigint AS version, COALESCE(h.hash, '')::bytea AS head_hash, COALESCE(e.at, now())::timestamptz AS updated_at,
       (1 + e.updates + COALESCE(h.sequence, 0) + COALESCE(p.version, 0))::bigint AS updates,
       (s.sku IS NOT NULL)::boolean AS stored, COALESCE(s.on_hand, 0)::bigint AS stored_on_hand, COALESCE(s.reserved, 0)::bigint AS stored_reserved,
       COALESCE(s.version, 0)::bigint AS stored_version, COALESCE(s.head_hash, '')::bytea AS stored_head_hash,
       COALESCE(s.updated_at, now())::timestamptz AS stored_updated_at
FROM (
    SELECT x.account, x.mode, x.sku, sum(x.source)::bigint AS sources, sum(x.on_hand)::bigint AS on_hand, sum(x.reserved)::bigint AS reserved,
           max(x.at)::timestamptz AS at, sum(x.updates)::bigint AS updates
    FROM (
        SELECT t.account, t.mode, t.sku, 0 AS source, 0 AS on_hand, 0 AS reserved, NULL::timestamptz AS at, 0 AS updates FROM stock t
        UNION ALL
        SELECT q.account, q.mode, q.sku, 1, 0, 0, q.created_at, 0 FROM products q
        UNION ALL
        SELECT v.account, v.mode, v.resource, 1, CASE WHEN v.type = 'inventory.adjusted' THEN (v.payload::jsonb->>'delta')::bigint ELSE 0 END, 0, v.created_at, 0
        FROM resource_events v WHERE v.kind = 'inventory'
        UNION ALL
        SELECT l.account, l.mode, l.sku, 1, CASE r.status WHEN 'confirmed' THEN -l.quantity ELSE 0 END, CASE r.status WHEN 'held' THEN l.quantity ELSE 0 END,
               r.updated_at, 3 -- held, confirmed, cancelled
        FROM stock_reservations r
        JOIN stock_reservation_lines l ON l.account = r.account AND l.mode = r.mode AND l.order_id = r.order_id AND l.attempt = r.attempt
    ) x
    GROUP BY x.account, x.mode, x.sku
) e
LEFT JOIN products p ON p.account = e.account AND p.mode = e.mode AND p.sku = e.sku
LEFT JOIN LATERAL (
    SELECT v.sequence, v.hash FROM resource_events v
    WHERE v.account = e.account AND v.mode = e.mode AND v.kind = 'inventory' AND v.resource = e.sku ORDER BY v.sequence DESC LIMIT 1
) h ON true
LEFT JOIN stock s ON s.account = e.account AND s.mode = e.mode AND s.sku = e.sku
WHERE (NOT @impossible::boolean OR e.on_hand < 0 OR e.reserved > e.on_hand) AND (e.sources = 0 OR (s.on_hand, s.reserved, s.low_at, s.version, s.head_hash, s.updated_at) IS DISTINCT FROM
      (e.on_hand, e.reserved, COALESCE(p.low_stock_at, -1), COALESCE(h.sequence, 0), COALESCE(h.hash, ''), e.at))
ORDER BY e.account, e.mode, e.sku LIMIT @page_size::integer;

-- name: LockStockRows :many
SELECT s.sku FROM stock s
JOIN (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
  ON s.account = w.account AND s.mode = w.mode AND s.sku = w.sku
ORDER BY s.account, s.mode, s.sku FOR UPDATE OF s;

-- name: CorrectStock :execrows
-- Corrects rows by what they lacked when they were compared. It must be a later statement than LockStockRows. Moves since then were added
-- to the wrong row as they would have been to the right one, so that the difference still holds; a version that moved since, and a later
-- updated_at, are right.
UPDATE stock s
SET on_hand = s.on_hand + w.on_hand, reserved = s.reserved + w.reserved, low_at = COALESCE(p.low_stock_at, -1),
    version = CASE WHEN s.version = w.stored_version AND s.head_hash = w.stored_head_hash THEN w.version ELSE s.version END,
    head_hash = CASE WHEN s.version = w.stored_version AND s.head_hash = w.stored_head_hash THEN w.head_hash ELSE s.head_hash END,
    updated_at = CASE WHEN s.updated_at = w.stored_updated_at THEN w.updated_at ELSE GREATEST(s.updated_at, w.updated_at) END,
    rev = GREATEST(s.rev + 1, w.rev)
FROM (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku,
             unnest(@on_hand_deltas::bigint[]) AS on_hand, unnest(@reserved_deltas::bigint[]) AS reserved, unnest(@versions::bigint[]) AS version,
             unnest(@head_hashes::bytea[]) AS head_hash, unnest(@updated_ats::timestamptz[]) AS updated_at, unnest(@revs::bigint[]) AS rev,
             unnest(@stored_versions::bigint[]) AS stored_version, unnest(@stored_head_hashes::bytea[]) AS stored_head_hash,
             unnest(@stored_updated_ats::timestamptz[]) AS stored_updated_at) w
LEFT JOIN products p ON p.account = w.account AND p.mode = w.mode AND p.sku = w.sku
WHERE s.account = w.account AND s.mode = w.mode AND s.sku = w.sku;

-- name: RestoreStock :execrows
-- Inserts rows that are missing. A sku without a row has no moves.
INSERT INTO stock (account, mode, sku, on_hand, reserved, low_at, version, head_hash, updated_at, rev)
SELECT unnest(@accounts::integer[]), unnest(@modes::text[]), unnest(@skus::text[]), unnest(@on_hands::bigint[]), unnest(@reserved::bigint[]),
       unnest(@low_ats::bigint[]), unnest(@versions::bigint[]), unnest(@head_hashes::bytea[]), unnest(@updated_ats::timestamptz[]), unnest(@revs::bigint[])
ON CONFLICT (account, mode, sku) DO NOTHING;

-- name: DeleteStock :execrows
-- Deletes rows that follow from nothing.
DELETE FROM stock s USING (SELECT unnest(@accounts::integer[]) AS account, unnest(@modes::text[]) AS mode, unnest(@skus::text[]) AS sku) w
WHERE s.account = w.account AND s.mode = w.mode AND s.sku = w.sku
  AND NOT EXISTS (SELECT FROM products p WHERE p.account = s.account AND p.mode = s.mode AND p.sku = s.sku);
