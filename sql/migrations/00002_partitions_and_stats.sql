-- +goose Up

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

-- Makes the monthly partitions of this month and so many to come. Safe to repeat and to run side by side. A month of which the
-- default partition already has rows stays there, with all that comes.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_partitions(months integer DEFAULT 3) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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

-- +goose Down
