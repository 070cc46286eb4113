#!/bin/sh
# PostgreSQL's image runs this once, when it makes the database: replicas in the same network may copy it and stream.
echo 'host replication all samenet scram-sha-256' >> "$PGDATA/pg_hba.conf"
