package app

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/order"
)

// parked is `ordergate parked`: what could not be handled, why, and a way to try it again once the cause is mended.
func parked(ctx context.Context, proc process, args []string) error {
	const how = "ordergate parked list | retry CONSUMER ORDER_ID"
	switch {
	case len(args) == 1 && args[0] == "list":
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
	case len(args) == 3 && args[0] == "retry":
		id, ok := order.Parse(order.PrefixOrder, args[2])
		if !ok {
			return fmt.Errorf("%q is no order's id", args[2])
		}
		pool, err := pgxpool.New(ctx, proc.cfg.PrimaryURL)
		if err != nil {
			return errNoPrimary
		}
		defer pool.Close()
		n, err := bus.RetryParked(ctx, pool, args[1], args[2], id.Shard())
		if err == nil {
			fmt.Fprintf(proc.stdout, "%d messages are tried again\n", n)
		}
		return err
	}
	return errors.New(how)
}
