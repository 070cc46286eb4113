package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
)

// second is the name of a second process of the API.
const second = "serve2"

// countKeys counts the API keys, which are the last that install writes.
const countKeys = `SELECT count(*) FROM api_keys`

// twoServers replaces the API's process by two that read from a replica, once it has what install wrote. They log what went wrong alone.
func (i *installation) twoServers(ctx context.Context, replicaURL string) error {
	if err := i.findReplica(ctx, replicaURL); err != nil {
		return err
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return err
	}
	i.apis, i.admin[second] = []string{i.api, addresses[0]}, addresses[1]
	i.kill("serve")
	for n, name := range []string{"serve", second} {
		if err = i.startAs(name, []string{"serve"}, "ORDERGATE_REPLICA_URLS="+i.replica, "ORDERGATE_ADDR="+i.apis[n], "ORDERGATE_LOG_LEVEL=warn"); err != nil {
			return err
		}
	}
	for _, addr := range i.apis {
		if err = await(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

// findReplica sets the replica, by its server, once it has what install wrote.
func (i *installation) findReplica(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	u.Path = "/" + i.database
	i.replica = u.String()
	return i.awaitReplica(ctx, countKeys, 1)
}

// awaitReplica waits until a statement counts as many on the replica.
func (i *installation) awaitReplica(ctx context.Context, statement string, want int64, args ...any) error {
	for end := time.Now().Add(time.Minute); ; {
		got, err := valueOf(ctx, i.replica, statement, args...)
		if err == nil && got >= want {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the replica does not follow: %d of %d: %w", got, want, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// valueOf runs a statement as superuser and returns its first value.
func valueOf(ctx context.Context, database, statement string, args ...any) (value int64, err error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, statement, args...).Scan(&value)
	return value, err
}
