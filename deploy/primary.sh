#!/bin/sh
# PostgreSQL's image runs this script once, when it makes the database. Replicas in the same network may then copy it and stream from it.
echo 'host replication all samenet scram-sha-256' >> "$PGDATA/pg_hba.conf"
