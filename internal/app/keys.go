package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/order"
)

// Scopes are all that a key can be given.
var Scopes = []string{"catalog:read", "inventory:read", "orders:read", "orders:write"}

func newFlags(name string) *flag.FlagSet {
	return flag.NewFlagSet("ordergate "+name, flag.ContinueOnError)
}

// parse reads flags, and nothing may stand behind them.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s does not take %q", flags.Name(), flags.Arg(0))
	}
	return nil
}

// withConn runs fn with one connection to the database, as whom the URL says.
func withConn(ctx context.Context, url string, fn func(*pgx.Conn) error) error {
	if url == "" {
		return errNoPrimary
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fn(conn)
}

// accountOf finds an account by its name or makes it.
func accountOf(ctx context.Context, q *accountsdb.Queries, name string) (int32, error) {
	a, err := q.GetAccount(ctx, name)
	if err == nil {
		return a.ID, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, err
	}
	return q.NextAccount(ctx, name)
}

// keys is `ordergate keys`. The text of a key is shown once, when it is made; only its hash is kept.
func keys(ctx context.Context, proc process, args []string) error {
	cfg, out := proc.cfg, proc.stdout
	const how = "ordergate keys create -account NAME [-mode test|live] [-name TEXT] [-scopes a,b] [-valid 720h] | list | revoke ID | rotate ID [-overlap 24h]"
	if len(args) == 0 {
		return errors.New(how)
	}
	ids := order.NewIDs(secretFor(cfg.Secret, "ids"))
	flags := newFlags("keys " + args[0])
	account := flags.String("account", "", "whose key it is; made if it is not there")
	mode := flags.String("mode", "test", "test or live")
	name := flags.String("name", "", "what you want to know it by")
	scopes := flags.String("scopes", strings.Join(Scopes, ","), "comma separated")
	valid := flags.Duration("valid", 0, "for how long; 0: without end")
	overlap := flags.Duration("overlap", 24*time.Hour, "how long the old key goes on")
	rest := args[1:]
	var id order.ID
	if args[0] == "revoke" || args[0] == "rotate" {
		if len(rest) == 0 {
			return errors.New(how)
		}
		var ok bool
		if id, ok = order.Parse(order.PrefixKey, rest[0]); !ok {
			return fmt.Errorf("%q is no key's id: ordergate keys list", rest[0])
		}
		rest = rest[1:]
	}
	if err := parse(flags, rest); err != nil {
		return err
	}
	if *valid < 0 || *overlap < 0 {
		return errors.New("a duration cannot be negative")
	}
	if args[0] == "create" && (*account == "" || *mode != "test" && *mode != "live") {
		return errors.New(how)
	}
	if len(cfg.Secret) < minSecret && (args[0] == "create" || args[0] == "rotate") {
		return errors.New("ORDERGATE_SECRET is not set: it must be the one of your other processes")
	}
	return withConn(ctx, cfg.PrimaryURL, func(conn *pgx.Conn) error {
		q := accountsdb.New(conn)
		switch args[0] {
		case "create":
			list := strings.Split(*scopes, ",")
			for _, s := range list {
				if !slices.Contains(Scopes, s) {
					return fmt.Errorf("no scope %q; there are %s", s, strings.Join(Scopes, ", "))
				}
			}
			number, err := accountOf(ctx, q, *account)
			if err != nil {
				return err
			}
			return createKey(ctx, q, ids, out, accountsdb.InsertKeyParams{Account: number, Mode: *mode, Name: *name, Scopes: list, ExpiresAt: expiry(*valid)})
		case "list":
			return listKeys(ctx, q, out)
		case "revoke":
			n, err := q.RevokeKey(ctx, uuid.UUID(id))
			if err == nil && n == 0 {
				err = errors.New("no such key")
			}
			return err
		case "rotate":
			old, err := q.GetKey(ctx, uuid.UUID(id))
			if err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			if old.RevokedAt != nil || old.ExpiresAt != nil && old.ExpiresAt.Before(time.Now()) {
				return errors.New("the key is no longer valid: create another one")
			}
			if err = createKey(ctx, q, ids, out, accountsdb.InsertKeyParams{
				Account: old.Account, Mode: old.Mode, Name: old.Name, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt,
			}); err != nil {
				return err
			}
			_, err = q.ExpireKey(ctx, accountsdb.ExpireKeyParams{ID: uuid.UUID(id), Seconds: overlap.Seconds()})
			return err
		}
		return errors.New(how)
	})
}

func expiry(valid time.Duration) *time.Time {
	if valid == 0 {
		return nil
	}
	t := time.Now().Add(valid).UTC()
	return &t
}

// createKey makes a key of 256 random bits and prints it.
func createKey(ctx context.Context, q *accountsdb.Queries, ids order.IDs, out io.Writer, p accountsdb.InsertKeyParams) error {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	text := "og_" + p.Mode + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	hash := sha256.Sum256([]byte(text))
	p.ID, p.Hash = uuid.UUID(ids.Mint(time.Now(), p.Account)), hash[:]
	if err := q.InsertKey(ctx, p); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "id   %s\nkey  %s  (shown once)\n", order.ID(p.ID).Format(order.PrefixKey), text)
	return err
}

func listKeys(ctx context.Context, q *accountsdb.Queries, out io.Writer) error {
	rows, err := q.ListKeys(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tACCOUNT\tMODE\tNAME\tSCOPES\tSTATE")
	for _, k := range rows {
		state := "valid"
		if k.ExpiresAt != nil {
			state = "until " + k.ExpiresAt.UTC().Format(time.RFC3339)
		}
		if k.RevokedAt != nil {
			state = "revoked " + k.RevokedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", order.ID(k.ID).Format(order.PrefixKey), k.AccountName, k.Mode, k.Name, strings.Join(k.Scopes, ","), state)
	}
	return w.Flush()
}
