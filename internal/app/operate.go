package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/sql"
)

// withConn runs fn with one connection to the database, as the user of the URL.
func withConn(ctx context.Context, url string, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("cannot connect to ORDERGATE_PRIMARY_URL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fn(conn)
}

// withPrimary runs fn with a connection to ORDERGATE_PRIMARY_URL, or to the primary of the stack that `ordergate run` runs in this folder.
func (proc process) withPrimary(ctx context.Context, fn func(*pgx.Conn) error) error {
	cfg, err := proc.cfg.orRunning()
	if err != nil {
		return err
	}
	return withConn(ctx, cfg.PrimaryURL, fn)
}

func migrate(flags *flag.FlagSet) runner {
	sample := flags.String("sample", "", "`account` that gets a sample catalogue in its test mode; made if there is none")
	return func(ctx context.Context, proc process) error {
		if *sample != "" && len(proc.cfg.Secret) < minSecret {
			return fmt.Errorf("-sample: ORDERGATE_SECRET needs %d characters at least: ids in the stock's events are made with it", minSecret)
		}
		if err := sql.Migrate(ctx, proc.cfg.PrimaryURL); err != nil {
			return err
		}
		fmt.Fprintln(proc.stdout, "schema is up to date, version", sql.Version())
		if *sample == "" {
			return nil
		}
		_, n, err := sampleAccount(ctx, proc.cfg, *sample)
		fmt.Fprintf(proc.stdout, "account %s has the sample catalogue of %d products\n", *sample, n)
		return err
	}
}

// sampleAccount returns the number of an account, and the number of products in its sample catalogue. Both are made if missing, and so are
// the sample coupons.
func sampleAccount(ctx context.Context, cfg Config, name string) (account int32, products int64, err error) {
	err = withConn(ctx, cfg.PrimaryURL, func(conn *pgx.Conn) error {
		if account, err = accountOf(ctx, accountsdb.New(conn), name); err != nil {
			return err
		}
		if products, err = loadCatalogue(ctx, conn, order.NewIDs(secretFor(cfg.Secret, "ids")), account); err != nil {
			return err
		}
		return loadCoupons(ctx, conn, account)
	})
	return account, products, err
}

// Scopes are all that a key can be given.
var Scopes = []string{
	"catalog:read", "catalog:write", "inventory:read", "inventory:write", "orders:read", "orders:write", "payments:write", "refunds:write",
	"shipments:write",
}

// accountOf finds an account by its name or makes it.
func accountOf(ctx context.Context, q *accountsdb.Queries, name string) (int32, error) {
	a, err := q.GetAccount(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return q.NextAccount(ctx, name)
	}
	return a.ID, err
}

// createKey is `ordergate keys create`. The text of a key is shown once, when it is made; only its hash is kept.
func createKey(flags *flag.FlagSet) runner {
	account := flags.String("account", "", "`name` of the account that the key belongs to; made if there is none")
	mode := flags.String("mode", "test", "test or live")
	name := flags.String("name", "", "`text` that you recognize the key by")
	scopes := flags.String("scopes", strings.Join(Scopes, ","), "comma separated")
	valid := flags.Duration("valid", 0, "how long it is valid, as 720h; 0: without end")
	return func(ctx context.Context, proc process) error {
		p := accountsdb.InsertKeyParams{Mode: *mode, Name: *name, Scopes: strings.Split(*scopes, ",")}
		for _, s := range p.Scopes {
			if !slices.Contains(Scopes, s) {
				return fmt.Errorf("no scope %q; there are %s", s, strings.Join(Scopes, ", "))
			}
		}
		switch {
		case *account == "":
			return errors.New("-account is missing: the name of the account that the key belongs to")
		case *mode != "test" && *mode != "live":
			return errors.New("-mode must be test or live")
		case *valid < 0:
			return errors.New("-valid cannot be negative")
		case *valid > 0:
			p.ExpiresAt = new(time.Now().Add(*valid).UTC())
		}
		return withConn(ctx, proc.cfg.PrimaryURL, func(conn *pgx.Conn) (err error) {
			q := accountsdb.New(conn)
			if p.Account, err = accountOf(ctx, q, *account); err != nil {
				return err
			}
			return proc.insertKey(ctx, q, p)
		})
	}
}

func revokeKey(ctx context.Context, proc process) error {
	id, err := keyID(proc.args[0])
	if err != nil {
		return err
	}
	return withConn(ctx, proc.cfg.PrimaryURL, func(conn *pgx.Conn) error {
		n, err := accountsdb.New(conn).RevokeKey(ctx, id)
		if err == nil && n == 0 {
			err = errors.New("no such key")
		}
		return err
	})
}

// rotateKey is `ordergate keys rotate`: the new key has everything from the old one but its text.
func rotateKey(flags *flag.FlagSet) runner {
	overlap := flags.Duration("overlap", 24*time.Hour, "how long the old key stays valid")
	return func(ctx context.Context, proc process) error {
		id, err := keyID(proc.args[0])
		if err != nil {
			return err
		}
		if *overlap < 0 {
			return errors.New("-overlap cannot be negative")
		}
		return withConn(ctx, proc.cfg.PrimaryURL, func(conn *pgx.Conn) error {
			q := accountsdb.New(conn)
			old, err := q.GetKey(ctx, id)
			if err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			if old.RevokedAt != nil || old.ExpiresAt != nil && old.ExpiresAt.Before(time.Now()) {
				return errors.New("the key is no longer valid: create another one")
			}
			if err = proc.insertKey(ctx, q, accountsdb.InsertKeyParams{
				Account: old.Account, Mode: old.Mode, Name: old.Name, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt,
			}); err != nil {
				return err
			}
			_, err = q.ExpireKey(ctx, accountsdb.ExpireKeyParams{ID: id, Seconds: overlap.Seconds()})
			return err
		})
	}
}

func keyID(text string) (uuid.UUID, error) {
	id, ok := order.Parse(order.PrefixKey, text)
	if !ok {
		return uuid.UUID{}, fmt.Errorf("%q is not the id of a key: ordergate keys list", text)
	}
	return uuid.UUID(id), nil
}

// insertKey makes a key of 256 random bits and prints it.
func (proc process) insertKey(ctx context.Context, q *accountsdb.Queries, p accountsdb.InsertKeyParams) error {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	text := "og_" + p.Mode + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	hash := sha256.Sum256([]byte(text))
	p.ID, p.Hash = uuid.UUID(order.NewIDs(secretFor(proc.cfg.Secret, "ids")).Mint(time.Now(), p.Account)), hash[:]
	if err := q.InsertKey(ctx, p); err != nil {
		return err
	}
	_, err := fmt.Fprintf(proc.stdout, "id   %s\nkey  %s  (shown once)\n", order.ID(p.ID).Format(order.PrefixKey), text)
	return err
}

func listKeys(ctx context.Context, proc process) error {
	return withConn(ctx, proc.cfg.PrimaryURL, func(conn *pgx.Conn) error {
		rows, err := accountsdb.New(conn).ListKeys(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(proc.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tACCOUNT\tMODE\tNAME\tSCOPES\tSTATE")
		for _, k := range rows {
			state := "valid"
			if k.ExpiresAt != nil {
				state = "until " + k.ExpiresAt.UTC().Format(time.RFC3339)
			}
			if k.RevokedAt != nil {
				state = "revoked " + k.RevokedAt.UTC().Format(time.RFC3339)
			}
			id, scopes := order.ID(k.ID).Format(order.PrefixKey), strings.Join(k.Scopes, ",")
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", id, k.AccountName, k.Mode, k.Name, scopes, state)
		}
		return w.Flush()
	})
}
