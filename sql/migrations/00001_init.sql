-- The first schema. Every row belongs to (account, mode), which leads every key. The role that migrates owns the tables. The program
-- works as ordergate_app, so that changes by hand can be told from its own.

-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ordergate_app') THEN
        CREATE ROLE ordergate_app NOLOGIN;
    END IF;
    IF NOT pg_has_role(current_user, 'ordergate_app', 'MEMBER') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT ordergate_app TO %I', current_user);
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- roles belong to the cluster: another database was migrated in the same moment
END $$;
-- +goose StatementEnd

-- A standby tells only members of pg_read_all_stats which timeline it receives. Without the membership the primary serves all reads in
-- the first minutes after a failover.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT pg_has_role('ordergate_app', 'pg_read_all_stats', 'MEMBER') THEN
        GRANT pg_read_all_stats TO ordergate_app;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING 'a superuser must: GRANT pg_read_all_stats TO ordergate_app';
    WHEN unique_violation THEN
        NULL; -- roles belong to the cluster: another database was migrated in the same moment
END $$;
-- +goose StatementEnd

-- The files that this database was migrated with, so that another build notices that its own are others.
CREATE TABLE migration_files (
    name   text PRIMARY KEY,
    sha256 text NOT NULL
);

CREATE TABLE accounts (
    id         integer PRIMARY KEY CHECK (id > 0),
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Of a key only the SHA-256 is stored.
CREATE TABLE api_keys (
    id          uuid PRIMARY KEY,
    account     integer NOT NULL REFERENCES accounts,
    mode        text NOT NULL CHECK (mode IN ('test', 'live')),
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE,
    scopes      text[] NOT NULL,
    expires_at  timestamptz,
    revoked_at  timestamptz,
    rate        integer NOT NULL DEFAULT 0 CHECK (rate BETWEEN 0 AND 1000000), -- requests in a window; 0: no limit
    rate_window integer NOT NULL DEFAULT 0 CHECK (rate_window BETWEEN 0 AND 86400), -- seconds
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (rate = 0 OR rate_window > 0)
);

CREATE TABLE products (
    account      integer NOT NULL,
    mode         text NOT NULL,
    sku          text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    description  text NOT NULL,
    prices       jsonb NOT NULL, -- currency -> minor units
    active       boolean NOT NULL DEFAULT true,
    low_stock_at bigint CHECK (low_stock_at >= 0), -- null: no threshold
    version      bigint NOT NULL DEFAULT 1,
    rev          bigint NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, sku)
);

-- What a search finds a product by: of each word of its sku and name, in lower case, all pairs of neighbouring characters, and the first
-- character after a blank, which no word has. Pairs find Chinese words, too, which no space divides. Each has its owner before it, so that the index needs no other
-- column: a plan that was made on an empty table would take one by the owner alone.
-- +goose StatementBegin
CREATE FUNCTION search_grams(account integer, mode text, words text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT COALESCE(array_agg(DISTINCT account || mode || ' ' || gram), '{}') FROM (
        SELECT substr(word, i, 2) AS gram FROM regexp_split_to_table(lower(words COLLATE "default"), '\s+') AS word, generate_series(1, length(word) - 1) AS i
        UNION ALL SELECT ' ' || left(word, 1) FROM regexp_split_to_table(lower(words COLLATE "default"), '\s+') AS word WHERE word <> ''
    ) AS grams
$$;
-- +goose StatementEnd

-- What all must be among those for a search: of a word of one character that it begins one, of longer ones their pairs.
-- +goose StatementBegin
CREATE FUNCTION query_grams(account integer, mode text, words text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT COALESCE(array_agg(DISTINCT account || mode || ' ' || gram), '{}') FROM (
        SELECT substr(word, i, 2) AS gram FROM regexp_split_to_table(lower(words COLLATE "default"), '\s+') AS word, generate_series(1, length(word) - 1) AS i
        UNION ALL SELECT ' ' || word FROM regexp_split_to_table(lower(words COLLATE "default"), '\s+') AS word WHERE length(word) = 1
    ) AS grams
$$;
-- +goose StatementEnd
CREATE INDEX products_by_words ON products USING gin (search_grams(account, mode, sku || ' ' || name));

-- A page of the skus, after one, of the products whose sku and name have every word of a text. Their pairs are looked up in the index, which is
-- read by a bitmap alone: our sessions have that off. Then it is looked at whether the pairs of a word stand together.
-- +goose StatementBegin
CREATE FUNCTION search_products(account integer, mode text, words text, after text, page integer) RETURNS SETOF text
LANGUAGE sql STABLE ROWS 20 SET enable_bitmapscan = on AS $$
    SELECT x.sku FROM (
        SELECT * FROM products p WHERE search_grams(p.account, p.mode, p.sku || ' ' || p.name) @> query_grams($1, $2, $3) OFFSET 0
    ) AS x
    WHERE x.account = $1 AND x.mode = $2 AND x.sku > $4 COLLATE "C" AND NOT EXISTS (
        SELECT FROM regexp_split_to_table(lower($3 COLLATE "default"), '\s+') AS word
        WHERE length(word) > 1 AND strpos(lower((x.sku || ' ' || x.name) COLLATE "default"), word) = 0)
    ORDER BY x.sku LIMIT $5
$$;
-- +goose StatementEnd

-- A coupon. rules are JSON of the package order/coupon, which alone knows what they mean. known_rules lets no rule in that the program
-- would not know.
CREATE TABLE coupons (
    account    integer NOT NULL,
    mode       text NOT NULL,
    code       text COLLATE "C" NOT NULL,
    rules      jsonb NOT NULL,
    limited    boolean NOT NULL, -- one of the rules looks at how often it was used
    active     boolean NOT NULL DEFAULT true,
    used       bigint NOT NULL DEFAULT 0 CHECK (used >= 0), -- if it is limited: its redemptions
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, code),
    CONSTRAINT known_rules CHECK (rules - '{fixed,minimum,per_customer,percentage,total,window}'::text[] = '{}')
);

-- The orders that use a coupon. The row of an order that ends rejected or cancelled is deleted.
CREATE TABLE coupon_redemptions (
    account      integer NOT NULL,
    mode         text NOT NULL,
    code         text COLLATE "C" NOT NULL,
    order_id     uuid NOT NULL,
    customer_ref text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, order_id)
);
CREATE INDEX coupon_redemptions_by_customer ON coupon_redemptions (code, account, mode, customer_ref);

-- The current state of an order: the fold of its events, and the columns that lists need. id is a UUIDv7, so that a range of
-- ids is a range of time; the month's partition is chosen by it.
CREATE TABLE orders (
    account        integer NOT NULL,
    mode           text NOT NULL,
    id             uuid NOT NULL,
    shard          smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    customer_ref   text NOT NULL,
    status         text NOT NULL,
    payment_status text NOT NULL,
    version        bigint NOT NULL CHECK (version > 0),
    rev            bigint NOT NULL CHECK (rev > 0),
    head_hash      bytea NOT NULL,
    state          json NOT NULL, -- as it was written: jsonb is 340 bytes longer, and made anew by each read and write
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (account, mode, id)
) PARTITION BY RANGE (id);
-- The column that lists filter by comes first. With (account, mode) first the index would cost as much as the primary key while a
-- partition is empty, and a cached plan of that time might look an id up by the wrong index.
CREATE INDEX orders_by_customer ON orders (customer_ref, account, mode, id);
CREATE INDEX orders_by_status ON orders (status, account, mode, id);

-- The merchants' own numbers of orders. An order keeps its number, whatever becomes of it.
CREATE TABLE order_references (
    account   integer NOT NULL,
    mode      text NOT NULL,
    reference text COLLATE "C" NOT NULL,
    order_id  uuid NOT NULL,
    PRIMARY KEY (account, mode, reference)
);

-- The table is append-only: the program may only insert and read. payload is text, because the hash covers its exact bytes.
CREATE TABLE order_events (
    account        integer NOT NULL,
    mode           text NOT NULL,
    order_id       uuid NOT NULL,
    version        bigint NOT NULL CHECK (version > 0),
    id             uuid NOT NULL,
    type           text NOT NULL,
    schema_version integer NOT NULL,
    payload        text NOT NULL,
    trace_id       text NOT NULL,
    operation      text NOT NULL,
    actor          text NOT NULL,
    created_at     timestamptz NOT NULL,
    prev_hash      bytea NOT NULL,
    hash           bytea NOT NULL,
    PRIMARY KEY (account, mode, order_id, version)
) PARTITION BY RANGE (order_id);

-- The events of payments, refunds, shipments and inventory, in the shape and with the chain of order_events; append-only, too. resource is
-- the id as clients see it, or the sku.
CREATE TABLE resource_events (
    account        integer NOT NULL,
    mode           text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('payment', 'refund', 'shipment', 'inventory')),
    resource       text COLLATE "C" NOT NULL,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    id             uuid NOT NULL,
    type           text NOT NULL,
    schema_version integer NOT NULL,
    payload        text NOT NULL,
    trace_id       text NOT NULL,
    operation      text NOT NULL,
    actor          text NOT NULL,
    created_at     timestamptz NOT NULL,
    prev_hash      bytea NOT NULL,
    hash           bytea NOT NULL,
    PRIMARY KEY (account, mode, kind, resource, sequence)
);
CREATE INDEX resource_events_of_payments ON resource_events (resource) WHERE kind = 'payment' AND sequence = 1; -- by the id alone

-- A shipment of an order: the fold of its events. The lock of the order's row covers it.
CREATE TABLE shipments (
    account      integer NOT NULL,
    mode         text NOT NULL,
    id           uuid NOT NULL,
    order_id     uuid NOT NULL,
    lines        jsonb NOT NULL, -- [{sku, quantity}]
    tracking     jsonb,          -- {carrier, number, url}
    status       text NOT NULL CHECK (status IN ('shipped', 'delivered')),
    version      bigint NOT NULL CHECK (version > 0),
    rev          bigint NOT NULL DEFAULT 1,
    head_hash    bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    delivered_at timestamptz,
    PRIMARY KEY (account, mode, id)
);
CREATE INDEX shipments_by_order ON shipments (order_id, account, mode, id);

-- Personal data stands beside the events, so that it can be erased.
CREATE TABLE order_addresses (
    account  integer NOT NULL,
    mode     text NOT NULL,
    order_id uuid NOT NULL,
    address  jsonb NOT NULL,
    PRIMARY KEY (account, mode, order_id)
);

CREATE TABLE idempotency_keys (
    account      integer NOT NULL,
    mode         text NOT NULL,
    operation    text NOT NULL,
    key          text COLLATE "C" NOT NULL,
    request_hash bytea NOT NULL,
    status       integer NOT NULL,
    code         text NOT NULL, -- of a refusal
    content_type text NOT NULL,
    etag         text NOT NULL,
    location     text NOT NULL,
    body         bytea NOT NULL,
    order_id     uuid, -- of the result, for Prefer: wait
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, operation, key)
) PARTITION BY HASH (account, operation, key);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_order ON idempotency_keys (order_id) WHERE order_id IS NOT NULL; -- `ordergate erase` rewrites bodies

-- The messages that are to be published, in the order of id. A row is deleted once its message is handled (lanes) or the broker has
-- stored it (Kafka).
CREATE TABLE outbox (
    id         bigserial PRIMARY KEY,
    shard      smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    topic      text NOT NULL,
    key        text NOT NULL,
    message_id uuid NOT NULL,
    trace_id   text NOT NULL,
    payload    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The messages that a consumer has handled. A row is written in the transaction of the message's effect.
CREATE TABLE inbox (
    consumer   text NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (message_id, consumer) -- message_id leads, so that PurgeInbox finds old rows by it
) PARTITION BY RANGE (message_id);

-- Messages that failed maxTries times (internal/bus), and later messages of the same key.
CREATE TABLE parked_messages (
    id         bigserial PRIMARY KEY,
    consumer   text NOT NULL,
    topic      text NOT NULL,
    key        text NOT NULL,
    message_id uuid NOT NULL,
    trace_id   text NOT NULL,
    payload    text NOT NULL,
    cause      text NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (message_id, consumer) -- message_id leads, so that an operator finds a message by it
);
CREATE INDEX parked_messages_by_key ON parked_messages (consumer, key);

-- The steps of an order's saga, in the order in which they were planned. Only the saga writes them, each time all, which is cheaper than a row of each:
-- step is a name of command/steps.go's table, attempt that of the payment, undo says that it compensates another one, code is of a failed step, and input of a
-- pending authorize its method token. An update finds place beside the row, as long as a part of each page is kept free.
CREATE TABLE sagas (
    account  integer NOT NULL,
    mode     text NOT NULL,
    order_id uuid NOT NULL,
    steps    json NOT NULL, -- [{step, attempt, undo, status, code, input, started_at, finished_at}]; what is false, empty or null is left out
    PRIMARY KEY (account, mode, order_id)
) WITH (fillfactor = 60);

CREATE VIEW saga_steps AS
SELECT s.account, s.mode, s.order_id, (x.step->>'step')::text AS step, (x.step->>'attempt')::integer AS attempt, x.position::integer AS position,
       COALESCE((x.step->>'undo')::boolean, false) AS undo, (x.step->>'status')::text AS status, COALESCE(x.step->>'code', '')::text AS code,
       COALESCE(x.step->>'input', '')::text AS input, (x.step->>'started_at')::timestamptz AS started_at, (x.step->>'finished_at')::timestamptz AS finished_at
FROM sagas s CROSS JOIN LATERAL json_array_elements(s.steps) WITH ORDINALITY AS x (step, position);

-- The stock of a sku: on_hand is the sum of its adjustments less the confirmed reservations. version and head_hash are of its last event;
-- low_at is a copy of the product's low_stock_at, -1 if it has none. updated_at is the latest of the product's created_at, its events and
-- its reservations' updated_at.
CREATE TABLE stock (
    account    integer NOT NULL,
    mode       text NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    on_hand    bigint NOT NULL DEFAULT 0 CHECK (on_hand >= 0),
    reserved   bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    low_at     bigint NOT NULL DEFAULT -1 CHECK (low_at >= -1),
    version    bigint NOT NULL DEFAULT 0,
    head_hash  bytea NOT NULL DEFAULT '',
    rev        bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, sku),
    CONSTRAINT not_oversold CHECK (reserved <= on_hand)
);

-- The header of a reservation. Its status changes: held -> confirmed | cancelled | expired, confirmed -> cancelled (the pieces go back).
-- A cancelled reservation without lines is a tombstone: its cancel came before its reserve command, which is refused.
CREATE TABLE stock_reservations (
    account    integer NOT NULL,
    mode       text NOT NULL,
    order_id   uuid NOT NULL,
    attempt    integer NOT NULL,
    status     text NOT NULL CHECK (status IN ('held', 'refused', 'confirmed', 'cancelled', 'expired')),
    expires_at timestamptz NOT NULL,
    expiring   boolean NOT NULL DEFAULT false, -- its expire command was sent
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, order_id, attempt)
);
CREATE INDEX stock_reservations_due ON stock_reservations (expires_at) WHERE NOT expiring AND status = 'held';

CREATE TABLE stock_reservation_lines (
    account  integer NOT NULL,
    mode     text NOT NULL,
    order_id uuid NOT NULL,
    attempt  integer NOT NULL,
    sku      text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (account, mode, order_id, attempt, sku)
);

CREATE VIEW stock_realtime AS
SELECT account, mode, sku, on_hand, reserved, (on_hand - reserved)::bigint AS available, rev, updated_at
FROM stock;

-- A payment of an order: the fold of its events, and the sums of its refunds. order_id leads the unique key: led by (account, mode) it
-- would cost as much as the primary key on an empty table, and a cached plan of that time would read all payments of an account. The
-- times are those of its events, and updated_at is not before those of its refunds.
CREATE TABLE payments (
    account        integer NOT NULL,
    mode           text NOT NULL,
    id             uuid NOT NULL,
    order_id       uuid NOT NULL,
    attempt        integer NOT NULL,
    amount         bigint NOT NULL CHECK (amount >= 0),
    currency       text NOT NULL,
    status         text NOT NULL CHECK (status IN ('pending', 'authorized', 'captured', 'voided', 'failed')),
    refunded       bigint NOT NULL DEFAULT 0,
    refund_pending bigint NOT NULL DEFAULT 0,
    failure_code   text NOT NULL,
    decline_reason text NOT NULL,
    reference      text NOT NULL,
    version        bigint NOT NULL CHECK (version > 0),
    head_hash      bytea NOT NULL,
    rev            bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (account, mode, id),
    UNIQUE (order_id, attempt, account, mode),
    CONSTRAINT not_refunded_twice CHECK (refunded >= 0 AND refund_pending >= 0 AND refunded + refund_pending <= amount)
) WITH (fillfactor = 60);
CREATE INDEX payments_by_id ON payments (id); -- the provider names a payment without its owner

-- A refund of a payment or of a part of it: the fold of its events.
CREATE TABLE refunds (
    account        integer NOT NULL,
    mode           text NOT NULL,
    id             uuid NOT NULL,
    payment_id     uuid NOT NULL,
    order_id       uuid NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    currency       text NOT NULL,
    reason         text NOT NULL,
    status         text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    failure_code   text NOT NULL,
    decline_reason text NOT NULL,
    reference      text NOT NULL,
    version        bigint NOT NULL CHECK (version > 0),
    head_hash      bytea NOT NULL,
    rev            bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (account, mode, id)
);
CREATE INDEX refunds_by_payment ON refunds (payment_id, account, mode, id);

-- The calls to the payment provider: one for each operation on a payment or refund, the subject; claimed by lease and fence; a try is one
-- request. A refund of a payment, as subject, is no request: the saga wants back all that the payment charges; refunds of that are opened when it is due.
CREATE TABLE payment_calls (
    account      integer NOT NULL,
    mode         text NOT NULL,
    subject      uuid NOT NULL,
    operation    text NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund')),
    payment_id   uuid NOT NULL,
    order_id     uuid NOT NULL,
    attempt      integer NOT NULL CHECK (attempt > 0),
    amount       bigint NOT NULL,
    currency     text NOT NULL,
    method_token text NOT NULL CHECK (method_token = '' OR next_at IS NOT NULL), -- of an authorization that is not definite
    tries        integer NOT NULL DEFAULT 0,
    next_at      timestamptz,          -- when the call is due, or the lease ends; null: the outcome is definite
    delay        double precision NOT NULL DEFAULT 0, -- of its first try, in seconds; 0 once it was tried
    deadline     timestamptz,          -- past it the key is cancelled at the provider
    fence        bigint NOT NULL DEFAULT 0,
    in_doubt     boolean NOT NULL DEFAULT false, -- a try had no definite outcome
    last_code    text NOT NULL DEFAULT '',
    trace_id     text NOT NULL,
    PRIMARY KEY (account, mode, subject, operation),
    CHECK (operation <> 'authorize' OR deadline IS NOT NULL)
);
CREATE INDEX payment_calls_new ON payment_calls (next_at) WHERE next_at IS NOT NULL AND tries = 0;
CREATE INDEX payment_calls_repeated ON payment_calls (next_at) WHERE next_at IS NOT NULL AND tries > 0;
CREATE INDEX payment_calls_by_order ON payment_calls (order_id, account, mode);

-- The generation of all that caches have, one row. `ordergate replay` raises it: every process forgets its entries of the one before.
CREATE TABLE cache_generation (
    id         boolean PRIMARY KEY DEFAULT true CHECK (id),
    generation bigint NOT NULL CHECK (generation > 0)
);
INSERT INTO cache_generation (generation) VALUES (1);

-- The change feed: what caches must know and our own path does not tell them. Every process listens on the channel ordergate_changes. A
-- message is `REV ACCOUNT MODE NAME` of a row, as tokens name it, or `flush GENERATION`. Our own path sends none but of products. Any role may
-- NOTIFY, so a message is a hint: the row of cache_generation says which generation it is.
--
-- The functions are called with any search_path (that of pg_dump's output is empty), and name no object of ours without its schema. A commit
-- that is visible before it is flushed lies behind the tokens of the reads that saw it, so synchronous_commit = off ends with the first change of a
-- transaction. Stricter settings stay.

-- +goose StatementBegin
CREATE FUNCTION tell_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ordergate_changes', 'flush ' || NEW.generation);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tell_generation AFTER UPDATE ON cache_generation FOR EACH ROW EXECUTE FUNCTION tell_generation();

-- Begins a new generation of the caches at COMMIT, once in a transaction. A setting of the transaction counts what it has told: past 100 all
-- is told.
-- +goose StatementBegin
CREATE FUNCTION flush_caches() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF COALESCE(NULLIF(current_setting('ordergate.told', true), ''), '0')::integer <= 100 THEN
        UPDATE cache_generation SET generation = generation + 1;
        PERFORM set_config('ordergate.told', '101', true);
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION flush_by_hand() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM flush_caches();
    RETURN COALESCE(NEW, OLD);
END $$;
-- +goose StatementEnd

-- An address is covered by the lock of its order: a command that has read it has the lock until it has told the caches what it read.
-- +goose StatementBegin
CREATE FUNCTION address_by_hand() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    changed order_addresses := COALESCE(NEW, OLD);
BEGIN
    PERFORM FROM orders o WHERE o.account = changed.account AND o.mode = changed.mode AND o.id = changed.order_id FOR UPDATE;
    PERFORM flush_caches();
    RETURN COALESCE(NEW, OLD);
END $$;
-- +goose StatementEnd

-- A row that is changed by hand gets a new rev. A row that is cached is told of, by the prefix of its name in TG_ARGV: the first 100 of a
-- transaction one by one, then by a flush. A row that is gone has no rev, so it takes a flush, too. Each table stands in the schema of the
-- functions: a search_path of the function itself would be set for each row.
-- +goose StatementBegin
CREATE FUNCTION changed_by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told integer := COALESCE(NULLIF(current_setting('ordergate.told', true), ''), '0');
    name text;
    gone boolean := TG_OP = 'DELETE';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.rev := GREATEST(NEW.rev, OLD.rev + 1);
    END IF;
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF TG_NARGS = 0 OR told > 100 THEN
        RETURN COALESCE(NEW, OLD);
    END IF;
    IF TG_ARGV[0] = 'prd_' THEN
        name := NEW.sku;
        gone := gone OR TG_OP = 'UPDATE' AND (OLD.account, OLD.mode, OLD.sku) <> (NEW.account, NEW.mode, NEW.sku);
    ELSE
        name := replace(NEW.id::text, '-', '');
        gone := gone OR TG_OP = 'UPDATE' AND (OLD.account, OLD.mode, OLD.id) <> (NEW.account, NEW.mode, NEW.id);
    END IF;
    IF gone OR told = 100 THEN
        EXECUTE format('SELECT %I.flush_caches()', TG_TABLE_SCHEMA);
    ELSE
        PERFORM pg_notify('ordergate_changes', concat_ws(' ', NEW.rev, NEW.account, NEW.mode, TG_ARGV[0] || name));
        PERFORM set_config('ordergate.told', (told + 1)::text, true);
    END IF;
    RETURN COALESCE(NEW, OLD);
END $$;
-- +goose StatementEnd

CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand('ord_');
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON products FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand('prd_');
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON payments FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand();
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON refunds FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand();
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON shipments FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand();
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON stock FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION changed_by_hand();
-- An order is shown with its address, whose table has no rev.
CREATE TRIGGER by_hand BEFORE INSERT OR UPDATE OR DELETE ON order_addresses FOR EACH ROW WHEN (current_user <> 'ordergate_app') EXECUTE FUNCTION address_by_hand();
CREATE TRIGGER truncated AFTER TRUNCATE ON order_addresses FOR EACH STATEMENT EXECUTE FUNCTION flush_by_hand();
CREATE TRIGGER truncated AFTER TRUNCATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION flush_by_hand();
CREATE TRIGGER truncated AFTER TRUNCATE ON products FOR EACH STATEMENT EXECUTE FUNCTION flush_by_hand();

-- The skus that there are must be known before one can be said not to be. And a product has no message in the outbox that would tell the
-- caches what its writer has not, because it died.
-- +goose StatementBegin
CREATE FUNCTION tell_product() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM pg_notify('ordergate_changes', concat_ws(' ', NEW.rev, NEW.account, NEW.mode, 'prd_' || NEW.sku));
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tell_product AFTER INSERT OR UPDATE ON products FOR EACH ROW WHEN (current_user = 'ordergate_app') EXECUTE FUNCTION tell_product();

-- Where this server stands. lsn: its position in the log, in bytes from its start: for a standby the one that it has replayed, for a primary the
-- one that is durable. timeline: a standby that receives nothing, or may not tell, reports the timeline of its last restart point, which may be
-- older and is never newer. disconnected: a standby that receives nothing does not advance, for however long. A receiver asks for a sign of life
-- after half of wal_receiver_timeout, so a receiver that heard nothing for all of it has lost its primary.
CREATE VIEW server_position AS
SELECT server.standby::boolean AS standby,
  COALESCE(CASE WHEN server.standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0'::pg_lsn, 0)::bigint AS lsn,
  (CASE WHEN server.standby THEN COALESCE(receiver.received_tli, (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END)::bigint AS timeline,
  (server.standby AND (receiver.pid IS NULL OR receiver.status <> 'streaming' OR receiver.last_msg_receipt_time < clock_timestamp()
    - NULLIF(current_setting('wal_receiver_timeout')::interval, '0')) IS TRUE)::boolean AS disconnected
FROM (SELECT pg_is_in_recovery() AS standby) AS server, pg_stat_get_wal_receiver() AS receiver;

-- For sql/query/freshness.sql.
-- +goose StatementBegin
CREATE FUNCTION open_transactions() RETURNS text[] LANGUAGE sql AS $$
    SELECT CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN ARRAY(
        SELECT a.backend_xid || CASE a.wait_event WHEN 'SyncRep' THEN ' SyncRep' ELSE '' END FROM pg_stat_activity a
        WHERE a.backend_xid IS NOT NULL AND a.datname = current_database() AND a.wait_event_type IS DISTINCT FROM 'Client' AND a.wait_event_type IS DISTINCT FROM 'Lock') END
$$;
-- +goose StatementEnd

-- LISTEN takes no parameter.
-- +goose StatementBegin
CREATE FUNCTION listen(channel text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LISTEN %I', channel);
END $$;
-- +goose StatementEnd

-- What the payment provider called us with. A callback is an observation: what it says is asked of the provider again. It is the
-- provider's, and may be about a payment that nobody has here: then it is parked.
CREATE TABLE provider_callbacks (
    provider      text NOT NULL,
    event_id      text COLLATE "C" NOT NULL,
    operation_key text NOT NULL,
    kind          text NOT NULL,      -- of the operation; empty: it has none
    status        text NOT NULL,
    payment_id    uuid,               -- null: it is about no payment of ours
    parked        boolean NOT NULL,   -- no row in payments had its payment
    body          text NOT NULL,      -- as it was sent
    received_at   timestamptz NOT NULL DEFAULT now(),
    next_at       timestamptz,        -- when its payment is compared with the provider's ledger; null: it was
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX provider_callbacks_due ON provider_callbacks (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX provider_callbacks_by_age ON provider_callbacks (received_at);

-- How far a provider's ledger is compared with our payments.
CREATE TABLE ledger_sweeps (
    provider text PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0, -- entries up to this sequence are compared
    timeline bigint NOT NULL,           -- of the database in which that was
    next_at  timestamptz NOT NULL,      -- when a sweep is due, or the lease ends
    fence    bigint NOT NULL DEFAULT 0
);

-- The default partitions store rows of months without a partition, so that no row is refused for the lack of one.
CREATE TABLE orders_default PARTITION OF orders DEFAULT;
CREATE TRIGGER truncated AFTER TRUNCATE ON orders_default FOR EACH STATEMENT EXECUTE FUNCTION flush_by_hand();
CREATE TABLE order_events_default PARTITION OF order_events DEFAULT;
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

-- +goose StatementBegin
DO $$
BEGIN
    FOR i IN 0..3 LOOP
        EXECUTE format('CREATE TABLE idempotency_keys_%s PARTITION OF idempotency_keys FOR VALUES WITH (MODULUS 4, REMAINDER %s)', i, i);
    END LOOP;
END $$;
-- +goose StatementEnd

-- Raises an error with the given SQLSTATE unless as many rows were written as were to be: so a writer's last round trip can be that of its COMMIT.
-- +goose StatementBegin
CREATE FUNCTION expect_rows(of text, written bigint, expected integer, code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF written IS DISTINCT FROM expected THEN
        RAISE EXCEPTION '% of % rows of % were written', written, expected, of USING ERRCODE = code;
    END IF;
END $$;
-- +goose StatementEnd

-- The least uuid that a UUIDv7 of the instant can be: its milliseconds, then zeros.
-- +goose StatementBegin
CREATE FUNCTION uuidv7_lower_bound(t timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM t) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
-- +goose StatementEnd

-- Makes the partitions of this month and the given number of later ones. It may be repeated and run concurrently. A month of which the
-- default partition already has rows gets no partition: its rows stay in the default one, later ones too.
-- +goose StatementBegin
CREATE FUNCTION ensure_partitions(months integer DEFAULT 3) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent   text;
    key      text;
    month    timestamptz;
    name     text;
    lower    uuid;
    upper    uuid;
    occupied boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('ensure_partitions'));
    FOR parent, key IN VALUES ('orders', 'id'), ('order_events', 'order_id'), ('inbox', 'message_id') LOOP
        FOR i IN 0..months LOOP
            month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
            name := parent || to_char(month AT TIME ZONE 'UTC', '_YYYY_MM');
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            lower := uuidv7_lower_bound(month);
            upper := uuidv7_lower_bound((month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
            -- This check reads the default partition without the lock under which CREATE would.
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L AND %I < %L)', parent || '_default', key, lower, key, upper) INTO occupied;
            CONTINUE WHEN occupied;
            -- An order changes its row a few times soon after it was placed: with room on its page fewer of the changes write the indexes.
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = %s)', name, parent, lower, upper,
                           CASE parent WHEN 'orders' THEN 50 ELSE 100 END);
            IF parent = 'orders' THEN -- it has the triggers of rows, and none of statements
                EXECUTE format('CREATE TRIGGER truncated AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION flush_by_hand()', name);
            END IF;
        END LOOP;
    END LOOP;
END $$;
-- +goose StatementEnd
SELECT ensure_partitions();

GRANT SELECT, INSERT, UPDATE, DELETE ON
    accounts,
    api_keys,
    coupon_redemptions,
    coupons,
    idempotency_keys,
    inbox,
    ledger_sweeps,
    order_addresses,
    order_references,
    orders,
    outbox,
    parked_messages,
    payment_calls,
    payments,
    products,
    provider_callbacks,
    refunds,
    sagas,
    shipments,
    stock,
    stock_reservation_lines,
    stock_reservations
    TO ordergate_app;
GRANT SELECT, INSERT ON order_events, resource_events TO ordergate_app;
GRANT SELECT, UPDATE ON cache_generation TO ordergate_app;
GRANT SELECT ON saga_steps, server_position, stock_realtime TO ordergate_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ordergate_app;

-- +goose Down
SELECT 'the first schema is not taken back';
