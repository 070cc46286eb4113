package app

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/order"
)

// listParked is `ordergate parked list`.
func listParked(ctx context.Context, proc process) error {
	return withConn(ctx, proc.cfg.PrimaryURL, func(conn *pgx.Conn) error {
		q := busdb.New(conn)
		w := tabwriter.NewWriter(proc.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "CONSUMER\tORDER\tTOPIC\tPARKED AT\tTRACE ID\tCAUSE")
		for after := int64(0); ; {
			rows, err := q.ListParked(ctx, busdb.ListParkedParams{After: after, PageSize: 500})
			if err != nil {
				return err
			}
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Consumer, r.Key, r.Topic, r.ParkedAt.UTC().Format(time.RFC3339), r.TraceID, r.Cause)
				after = r.ID
			}
			if len(rows) < 500 {
				return w.Flush()
			}
		}
	})
}

// retryParked is `ordergate parked retry`: the messages go back into the outbox, in their order. Repeating it does no harm.
func retryParked(ctx context.Context, proc process) error {
	consumer, key := proc.args[0], proc.args[1]
	id, ok := order.Parse(order.PrefixOrder, key)
	if !ok {
		return fmt.Errorf("%q is not the id of an order", key)
	}
	if proc.cfg.PrimaryURL == "" {
		return errNoPrimary
	}
	pool, err := pgxpool.New(ctx, proc.cfg.PrimaryURL)
	if err != nil {
		return fmt.Errorf("cannot parse ORDERGATE_PRIMARY_URL: %w", err)
	}
	defer pool.Close()
	n, err := bus.RetryParked(ctx, pool, consumer, key, id.Shard())
	if err == nil {
		fmt.Fprintf(proc.stdout, "%d messages are tried again\n", n)
	}
	return err
}
