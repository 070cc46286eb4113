-- The first schema. Every row belongs to (account, mode), which leads every key. Names of roles: whoever migrates owns the
-- tables, the program works as ordergate_app, so that hands in the database can be told from it.

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

-- A standby tells only this role which timeline it receives. Without it the reads of a failover's first minutes fall on the primary.
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

CREATE TABLE accounts (
    id         integer PRIMARY KEY CHECK (id > 0),
    name       text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Only the SHA-256 of a key is kept.
CREATE TABLE api_keys (
    id         uuid PRIMARY KEY,
    account    integer NOT NULL REFERENCES accounts,
    mode       text NOT NULL CHECK (mode IN ('test', 'live')),
    name       text NOT NULL,
    hash       bytea NOT NULL UNIQUE,
    scopes     text[] NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
    account     integer NOT NULL,
    mode        text NOT NULL,
    sku         text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    description text NOT NULL,
    prices      jsonb NOT NULL, -- currency -> minor units
    active      boolean NOT NULL DEFAULT true,
    version     bigint NOT NULL DEFAULT 1,
    rev         bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, sku)
);

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
    state          jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (account, mode, id)
) PARTITION BY RANGE (id);
-- What lists filter by comes first: with (account, mode) first these would cost the same as the primary key on a partition that is
-- still empty, and a plan made then, and kept, might look an id up by the wrong one.
CREATE INDEX orders_by_customer ON orders (customer_ref, account, mode, id);
CREATE INDEX orders_by_status ON orders (status, account, mode, id);

-- Append-only: the program may insert and read, nothing else. payload is text, because the hash covers its exact bytes.
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

-- Personal data stands beside the events, so that it can be forgotten.
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
    order_id     uuid, -- what the answer is about, for Prefer: wait
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, operation, key)
) PARTITION BY HASH (account, operation, key);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- What is to be published, in the order of id. A row leaves when its message was handled (lanes) or taken over (Kafka).
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

-- Which messages a consumer has handled; written in the transaction of their effect.
CREATE TABLE inbox (
    consumer   text NOT NULL,
    message_id uuid NOT NULL,
    PRIMARY KEY (message_id, consumer) -- in this order the old ones are found
) PARTITION BY RANGE (message_id);

-- Messages that failed again and again, and the later ones of the same key.
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
    UNIQUE (consumer, message_id)
);
CREATE INDEX parked_messages_by_key ON parked_messages (consumer, key);

-- The steps of an order's saga: the saga alone writes them. attempt is the payment attempt.
CREATE TABLE saga_steps (
    account     integer NOT NULL,
    mode        text NOT NULL,
    order_id    uuid NOT NULL,
    step        text NOT NULL, -- a name of command/steps.go's table
    attempt     integer NOT NULL CHECK (attempt > 0),
    position    integer NOT NULL,
    undo        boolean NOT NULL, -- it takes another step back
    status      text NOT NULL CHECK (status IN ('pending', 'running', 'done', 'failed', 'skipped')),
    code        text NOT NULL DEFAULT '', -- of a failed step
    input       text NOT NULL DEFAULT '', -- authorize: the method token, until the step is started
    started_at  timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (account, mode, order_id, step, attempt)
);

-- Inventory.
CREATE TABLE stock (
    account    integer NOT NULL,
    mode       text NOT NULL,
    sku        text COLLATE "C" NOT NULL,
    on_hand    bigint NOT NULL CHECK (on_hand >= 0),
    reserved   bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    rev        bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, sku),
    CONSTRAINT not_oversold CHECK (reserved <= on_hand)
);

-- The header of a reservation. status decides: held -> confirmed | cancelled | expired, confirmed -> cancelled (given back).
-- A cancelled one without lines is a tombstone: its reserve command came after its cancel and is refused.
CREATE TABLE stock_reservations (
    account    integer NOT NULL,
    mode       text NOT NULL,
    order_id   uuid NOT NULL,
    attempt    integer NOT NULL,
    status     text NOT NULL CHECK (status IN ('held', 'refused', 'confirmed', 'cancelled', 'expired')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, order_id, attempt)
);
CREATE INDEX stock_reservations_due ON stock_reservations (expires_at) WHERE status = 'held';

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

-- Payment. The unique key is led by order_id: led by (account, mode) it would cost as much as the primary key on an empty table, and a
-- plan made then, and kept, would read all payments of an account.
CREATE TABLE payments (
    account        integer NOT NULL,
    mode           text NOT NULL,
    id             uuid NOT NULL,
    order_id       uuid NOT NULL,
    attempt        integer NOT NULL,
    amount         bigint NOT NULL CHECK (amount >= 0),
    currency       text NOT NULL,
    method_token   text NOT NULL,
    status         text NOT NULL CHECK (status IN ('pending', 'authorized', 'captured', 'voided', 'failed')),
    refunded       bigint NOT NULL DEFAULT 0,
    refund_pending bigint NOT NULL DEFAULT 0,
    failure_code   text NOT NULL DEFAULT '',
    decline_reason text NOT NULL DEFAULT '',
    reference      text NOT NULL DEFAULT '',
    rev            bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, mode, id),
    UNIQUE (order_id, attempt, account, mode),
    CONSTRAINT not_refunded_twice CHECK (refunded >= 0 AND refund_pending >= 0 AND refunded + refund_pending <= amount)
);

-- The calls to the payment provider: one for each operation of an attempt, claimed by lease and fence; a try is one request.
CREATE TABLE payment_calls (
    account     integer NOT NULL,
    mode        text NOT NULL,
    order_id    uuid NOT NULL,
    operation   text NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund')),
    attempt     integer NOT NULL CHECK (attempt > 0),
    tries       integer NOT NULL DEFAULT 0,
    next_at     timestamptz,          -- due for a worker, or the end of its lease; null: the outcome is definite
    deadline    timestamptz,          -- past it the provider is told to forget the key
    fence       bigint NOT NULL DEFAULT 0,
    in_doubt    boolean NOT NULL DEFAULT false, -- a try had no definite answer
    last_code   text NOT NULL DEFAULT '',
    trace_id    text NOT NULL,
    PRIMARY KEY (account, mode, order_id, operation, attempt)
);
CREATE INDEX payment_calls_due ON payment_calls (next_at) WHERE next_at IS NOT NULL;

-- Partitions. The default ones take what no month was made for, so that nothing is ever refused for want of a partition.
CREATE TABLE orders_default PARTITION OF orders DEFAULT;
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

-- The smallest UUIDv7 of an instant.
-- +goose StatementBegin
CREATE FUNCTION uuid_floor(t timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM t) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
-- +goose StatementEnd

-- Makes the monthly partitions of this month and so many to come. Safe to repeat and to run side by side. A month of which the
-- default partition already has rows stays there, with all that comes.
-- +goose StatementBegin
CREATE FUNCTION ensure_partitions(months integer DEFAULT 3) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent text;
    key    text;
    month  timestamptz;
    name   text;
    lower  uuid;
    upper  uuid;
    taken  boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('ensure_partitions'));
    FOR parent, key IN VALUES ('orders', 'id'), ('order_events', 'order_id'), ('inbox', 'message_id') LOOP
        FOR i IN 0..months LOOP
            month := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
            name := parent || to_char(month AT TIME ZONE 'UTC', '_YYYY_MM');
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            lower := uuid_floor(month);
            upper := uuid_floor((month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC');
            -- Without the lock that CREATE would hold while it looks.
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= %L AND %I < %L)', parent || '_default', key, lower, key, upper) INTO taken;
            CONTINUE WHEN taken;
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', name, parent, lower, upper);
        END LOOP;
    END LOOP;
END $$;
-- +goose StatementEnd
SELECT ensure_partitions();

GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, api_keys, products, orders, order_addresses, idempotency_keys, outbox, inbox,
    parked_messages, saga_steps, stock, stock_reservations, stock_reservation_lines, payments, payment_calls TO ordergate_app;
GRANT SELECT, INSERT ON order_events TO ordergate_app;
GRANT SELECT ON stock_realtime TO ordergate_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ordergate_app;

-- +goose Down
SELECT 'the first schema is not taken back';
