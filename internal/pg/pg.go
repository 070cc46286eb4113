// Package pg has connection pools, transactions and the classes of PostgreSQL's errors.
package pg

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Session has the settings of every connection of ours: role ordergate_app, UTC, at most 10 s a statement. Every query of ours uses
// an index: a plan that is made and kept while a table is empty must not scan the table once it is full. The server ends the
// transaction of a process that is idle in it for 5 s; the relay sets a longer time.
var Session = map[string]string{
	"role": "ordergate_app", "timezone": "UTC", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s",
	"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
}

// connectLimit bounds connecting, and the check of a new connection.
const connectLimit = 3 * time.Second

// Connect makes a pool with the settings of Session, which connects at its first use. lock_timeout is 300 ms, and the server drops an
// unreachable client within 5 s. Every call needs a deadline: the pool does not notice a silent server. check, if not nil, sees each
// new connection and may refuse it. An error means that url is unusable; it does not contain url.
func Connect(ctx context.Context, url string, size int32, check func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("cannot parse the URL") // the driver's message may contain the password
	}
	c.MaxConns, c.MinIdleConns = size, min(size, 4)
	c.ConnConfig.ConnectTimeout = connectLimit
	c.ConnConfig.Tracer = otelpgx.NewTracer()
	maps.Copy(c.ConnConfig.RuntimeParams, Session)
	maps.Copy(c.ConnConfig.RuntimeParams, map[string]string{
		"application_name": "ordergate", "lock_timeout": "300ms",
		"tcp_user_timeout": "5s", "tcp_keepalives_idle": "5", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "5",
	})
	if check != nil {
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			ctx, cancel := context.WithTimeout(ctx, connectLimit)
			defer cancel()
			return check(ctx, conn)
		}
	}
	return pgxpool.NewWithConfig(ctx, c)
}
