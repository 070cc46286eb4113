// Package pg has connection pools, transactions and the classes of PostgreSQL's errors.
package pg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/ordergate/ordergate/internal/panics"
)

// Session has the settings of all our connections. Statements run as ordergate_app, in UTC, for 10 s at most, and wait 300 ms
// for a lock. A query is planned once a connection, for any parameters: all our queries look rows up or walk an index, and a plan that was made
// while a table was empty must do so when it is full (TestEveryCachedPlanIsAnIndexLookUp). None is compiled: a plan that needs what is off
// has a cost at which PostgreSQL would compile it for 140 ms, each time. Whatever the database's default is, a statement sees what was committed
// when it began: the positions of a read stand around it in one transaction. The server ends a session that is idle in a transaction for 5 s;
// the relay sets more.
var Session = map[string]string{
	"role": "ordergate_app", "timezone": "UTC", "lock_timeout": "300ms", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "5s",
	"default_transaction_isolation": "read committed",
	"plan_cache_mode":               "force_generic_plan",
	"jit":                           "off",
	"enable_seqscan":                "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
}

// ReadSession is the Session of the read side: PostgreSQL refuses every write with ReadOnlyTransaction.
var ReadSession = with("default_transaction_read_only", "on")

// WorkerSession is the Session of the worker, which has other messages to handle than those that wait for a row.
var WorkerSession = with("lock_timeout", "50ms")

// ReplaySession is the Session of `replay`. It does not keep others from their rows for long, and its walks over whole tables take long.
var ReplaySession = with("lock_timeout", "50ms", "statement_timeout", "1h")

func with(settings ...string) map[string]string {
	s := maps.Clone(Session)
	for i := 0; i < len(settings); i += 2 {
		s[settings[i]] = settings[i+1]
	}
	return s
}

// connectLimit bounds connecting, and the check of a new connection.
const connectLimit = 3 * time.Second

// Connect makes a pool with the settings of session, one of the above, which connects at its first use. The server drops an unreachable
// client within 5 s. Every call needs a deadline: the pool does not notice a silent server. check, if not nil, sees each new connection
// and may refuse it. An error means that url is unusable; it does not contain url.
func Connect(ctx context.Context, url string, size int32, session map[string]string,
	check func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("cannot parse the URL") // the driver's message may contain the password
	}
	c.MaxConns, c.MinIdleConns = size, min(size, 4)
	c.ConnConfig.ConnectTimeout = connectLimit
	c.ConnConfig.Tracer = otelpgx.NewTracer()
	maps.Copy(c.ConnConfig.RuntimeParams, session)
	maps.Copy(c.ConnConfig.RuntimeParams, map[string]string{
		"application_name": "ordergate",
		"tcp_user_timeout": "5s", "tcp_keepalives_idle": "5", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "5",
	})
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		types := conn.TypeMap()
		pgxuuid.Register(types) // else each UUID goes to the server and back through a text
		types.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapUUIDs}, types.TryWrapEncodePlanFuncs...)
		if check == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, connectLimit)
		defer cancel()
		return panics.Catch(func() error { return check(ctx, conn) }) // the pool calls it in a goroutine of its own
	}
	return pgxpool.NewWithConfig(ctx, c)
}

// wrapUUIDs has the driver encode arrays of UUIDs as it does those of its own types, without reflection.
func wrapUUIDs(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	ids, ok := value.([]uuid.UUID)
	return &uuidsPlan{}, pgtype.FlatArray[uuid.UUID](ids), ok
}

type uuidsPlan struct{ next pgtype.EncodePlan }

// SetNext sets the plan of the wrapped array.
func (p *uuidsPlan) SetNext(next pgtype.EncodePlan) { p.next = next }

// Encode appends the array.
func (p *uuidsPlan) Encode(value any, to []byte) ([]byte, error) {
	ids, ok := value.([]uuid.UUID)
	if !ok {
		return nil, fmt.Errorf("%T is no array of UUIDs", value)
	}
	return p.next.Encode(pgtype.FlatArray[uuid.UUID](ids), to)
}
