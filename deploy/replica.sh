#!/bin/sh
# This script makes PGDATA a streaming replica of the server at PRIMARY, as POSTGRES_USER with POSTGRES_PASSWORD, then runs its
# arguments: the server. The first start copies the primary. A later start continues, unless the primary no longer has the WAL that the
# replica needs: then the replica is copied again. The slot makes the primary keep WAL while the replica is away.
set -eu
slot=replica

primary() { # a program, its arguments
    PGHOST=$PRIMARY PGUSER=$POSTGRES_USER PGPASSWORD=$POSTGRES_PASSWORD "$@"
}
ask() {
    primary psql --dbname=postgres --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --command="$1"
}

if [ -f "$PGDATA/standby.signal" ]; then
    # The copy stays while the primary does not answer.
    kept=$(ask "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$slot' AND wal_status <> 'lost'") || kept=unknown
    if [ "$kept" = 0 ]; then
        echo "the primary no longer has the WAL that this replica needs: the replica is copied again" >&2
        rm -rf "$PGDATA"
    fi
fi
if [ ! -e "$PGDATA" ]; then
    rm -rf "$PGDATA.new"
    ask "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '$slot' AND active" >/dev/null
    ask "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$slot'" >/dev/null
    primary pg_basebackup --pgdata="$PGDATA.new" --create-slot --slot="$slot" --wal-method=stream --checkpoint=fast --write-recovery-conf
    mv "$PGDATA.new" "$PGDATA" # an interrupted copy keeps the other name
fi
exec "$@"
