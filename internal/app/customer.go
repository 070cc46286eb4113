package app

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/internal/export"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

const (
	maxKeptShown = 100     // orders that keep their address and are listed by `erase`
	countTime    = "10min" // for one statement: it may count millions of orders of one customer
)

// customerFlags are the flags that choose a customer.
type customerFlags struct{ customer, account, mode *string }

func newCustomerFlags(flags *flag.FlagSet) customerFlags {
	return customerFlags{
		flags.String("customer", "", "the customer's `customer_ref`, as the orders have it"),
		flags.String("account", "", "`name` of the account that the orders belong to; without it, in the stack of `run`, "+demoAccount),
		flags.String("mode", "test", "test or live"),
	}
}

// withCustomer runs fn with a pool and the customer that the flags choose: on ORDERGATE_PRIMARY_URL, or on the stack that `ordergate run`
// runs in this folder.
func (proc process) withCustomer(ctx context.Context, f customerFlags, session map[string]string, fn func(*pgxpool.Pool, export.Customer) error) error {
	running := proc.cfg.PrimaryURL == ""
	cfg, err := proc.cfg.orRunning()
	if err != nil {
		return err
	}
	account := *f.account
	if running {
		account = cmp.Or(account, demoAccount)
	}
	switch {
	case *f.customer == "":
		return errors.New("-customer is missing: the customer_ref of the orders")
	case account == "":
		return errors.New("-account is missing: the name of the account that the orders belong to")
	case *f.mode != "test" && *f.mode != "live":
		return errors.New("-mode must be test or live")
	}
	session = maps.Clone(session)
	session["statement_timeout"] = countTime
	pool, err := pg.Connect(ctx, cfg.PrimaryURL, 2, session, nil)
	if err != nil {
		return err
	}
	defer pool.Close()
	row, err := accountsdb.New(pool).GetAccount(ctx, account)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("no account %q", account)
	}
	if err != nil {
		return fmt.Errorf("cannot read accounts on ORDERGATE_PRIMARY_URL: %w", err)
	}
	return fn(pool, export.Customer{Owner: order.Owner{Account: row.ID, Mode: *f.mode}, AccountName: account, CustomerRef: *f.customer})
}

// exportCustomer is `ordergate export`.
func exportCustomer(flags *flag.FlagSet) runner {
	f := newCustomerFlags(flags)
	return func(ctx context.Context, proc process) error {
		return proc.withCustomer(ctx, f, pg.ReadSession, func(pool *pgxpool.Pool, c export.Customer) error {
			out := bufio.NewWriter(proc.stdout)
			orders, err := export.Write(ctx, pool, out, c)
			if err == nil && orders == 0 { // perhaps it is mistyped
				fmt.Fprintf(proc.logs, "no order of account %s, %s mode, has the customer_ref %q\n", c.AccountName, c.Mode, c.CustomerRef)
			}
			return errors.Join(err, out.Flush())
		})
	}
}

// eraseCustomer is `ordergate erase`: it erases the shipping addresses of a customer's orders, and says before what it will do. Repeating it
// does what is left to do.
func eraseCustomer(flags *flag.FlagSet) runner {
	f := newCustomerFlags(flags)
	force := flags.Bool("force", false, "also of orders that are under way and need their address")
	yes := flags.Bool("yes", false, "does not ask")
	return func(ctx context.Context, proc process) error {
		return proc.withCustomer(ctx, f, pg.Session, func(pool *pgxpool.Pool, c export.Customer) error {
			secret, err := proc.cfg.idSecret()
			if err != nil {
				return err
			}
			commands := command.New(command.Config{Pool: pool, IDs: order.NewIDs(SecretFor(secret, "ids")), Now: time.Now})
			return proc.erase(ctx, commands, c, *force, *yes, pool.Config().ConnConfig.User)
		})
	}
}

func (proc process) erase(ctx context.Context, commands *command.Commands, c export.Customer, force, yes bool, databaseUser string) error {
	there, err := commands.Customer(ctx, c.Owner, c.CustomerRef)
	if err != nil {
		return fmt.Errorf("count orders: %w", err)
	}
	fmt.Fprintf(proc.stdout, "customer %q of account %s, %s mode: %d orders, %d with a shipping address\n", c.CustomerRef, c.AccountName, c.Mode, there.Orders, there.Addresses)
	if there.Orders == 0 {
		return nil
	}
	if there.Addresses == 0 {
		fmt.Fprintln(proc.stdout, "No order has an address. Results that are stored under idempotency keys for 48 h may have an earlier one, which is erased for ever. Backups and archived logs may have it still.")
	} else {
		fmt.Fprintln(proc.stdout, "The addresses are erased for ever, also from the results that are stored under idempotency keys. Backups and archived logs have them still.")
	}
	if force && there.Addresses > 0 {
		fmt.Fprintln(proc.stdout, "Orders that are still to be shipped lose theirs, too.")
	}
	if err = proc.confirm(ctx, yes, "Erase them?", "nothing was erased"); err != nil {
		return err
	}
	var trace [16]byte
	_, _ = rand.Read(trace[:])
	e := command.Erasure{Owner: c.Owner, CustomerRef: c.CustomerRef, Last: there.Last, Force: force, TraceID: hex.EncodeToString(trace[:])}
	return proc.withTelemetry(ctx, func(tel *telemetry.Telemetry) error {
		log := tel.Log.With(zap.String("trace_id", e.TraceID), zap.String("account", c.AccountName), zap.String("mode", c.Mode), zap.String("customer_ref", c.CustomerRef),
			zap.Bool("force", force), zap.String("operator", operator()), zap.String("database_user", databaseUser))
		log.Warn("erase", zap.String("outcome", "begun"), zap.Int64("orders", there.Orders))
		show, end := progressLine(proc.logs)
		done, err := commands.EraseAddresses(ctx, e, func(done command.Erased) {
			show(func() string {
				return progressOf(float64(done.LookedAt)/float64(there.Orders)) + fmt.Sprintf("%d of %d orders", done.LookedAt, there.Orders)
			})
		})
		end()
		outcome := "done"
		if err != nil {
			outcome = "ended early"
		}
		log.Warn("erase", zap.String("outcome", outcome), zap.Int64("orders", done.LookedAt), zap.Int64("addresses", done.Addresses), zap.Int64("results", done.Results),
			zap.Int("kept", len(done.Kept)))
		fmt.Fprintln(proc.stdout, erasedText(done, e.TraceID))
		if err != nil {
			return fmt.Errorf("%w\nWhat is erased stays erased. Run it again: it goes on with the rest", err)
		}
		for i, id := range done.Kept {
			if i == maxKeptShown {
				fmt.Fprintf(proc.stdout, "  and %d more\n", len(done.Kept)-i)
				break
			}
			fmt.Fprintf(proc.stdout, "  %s keeps its address\n", id.Format(order.PrefixOrder))
		}
		if n := len(done.Kept); n > 0 {
			return fmt.Errorf("%d orders are under way and keep their address until then: run it again when they have ended, or with -force", n)
		}
		return nil
	})
}

// erasedText says what was erased, and in the case of events how they are found. Only an order that had an address has an event.
func erasedText(done command.Erased, traceID string) string {
	switch {
	case done.Addresses > 0:
		return fmt.Sprintf("erased %d addresses, and those in %d stored results, of %d orders. Trace id of their events: %s", done.Addresses, done.Results, done.LookedAt, traceID)
	case done.Results > 0:
		return fmt.Sprintf("erased the addresses in %d stored results of %d orders; no order changed, and no event was written", done.Results, done.LookedAt)
	}
	return fmt.Sprintf("erased nothing in %d orders and their stored results; no event was written", done.LookedAt)
}
