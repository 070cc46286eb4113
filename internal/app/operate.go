package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"regexp"
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
	account := flags.String("sample", "", "`account` that gets sample products and coupons in its test mode, unless it has products; made if there is none")
	return func(ctx context.Context, proc process) error {
		if *account != "" && len(proc.cfg.Secret) < minSecret {
			return fmt.Errorf("-sample: ORDERGATE_SECRET needs %d characters at least: ids in the stock's events are made with it", minSecret)
		}
		if err := sql.Migrate(ctx, proc.cfg.PrimaryURL); err != nil {
			return err
		}
		fmt.Fprintln(proc.stdout, "schema is up to date, version", sql.Version())
		if *account == "" {
			return nil
		}
		s, err := sampleAccount(ctx, proc.cfg, *account)
		if err != nil {
			return err
		}
		if s.loaded == 0 {
			_, err = fmt.Fprintf(proc.stdout, "account %s has products already (%d): it was left alone\n", *account, s.products)
			return err
		}
		_, err = fmt.Fprintf(proc.stdout, "account %s: loaded %d sample products; its sample coupons: %s\n", *account, s.loaded, s.couponCodes())
		return err
	}
}

// sampled is what sampleAccount found or made, in the account's test mode.
type sampled struct {
	account  int32
	loaded   int64    // products: all of the sample, or none because the account had products
	products int64    // that the account has now
	coupons  []string // codes of the sample coupons that it has now and that are not disabled
}

// sampleAccount gives an account, which is made if there is none, the sample products and coupons, unless it has products.
func sampleAccount(ctx context.Context, cfg Config, name string) (s sampled, err error) {
	err = withConn(ctx, cfg.PrimaryURL, func(conn *pgx.Conn) error {
		account, err := accountOf(ctx, accountsdb.New(conn), name)
		if err != nil {
			return err
		}
		s, err = loadSample(ctx, conn, order.NewIDs(SecretFor(cfg.Secret, "ids")), account)
		return err
	})
	return s, err
}

// Scopes are all that a key can be given.
var Scopes = []string{
	"catalog:read", "catalog:write", "inventory:read", "inventory:write", "orders:read", "orders:write", "payments:read", "payments:write",
	"refunds:read", "refunds:write", "shipments:read", "shipments:write",
}

var (
	accountName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	errAccountName = errors.New("the name of an account has 1 to 64 letters, digits, dots, hyphens and underscores, and begins with a letter or digit")
)

// accountOf finds an account by its name or makes it. One that is made has a name of the form.
func accountOf(ctx context.Context, q *accountsdb.Queries, name string) (int32, error) {
	a, err := q.GetAccount(ctx, name)
	if errors.Is(err, pgx.ErrNoRows) {
		if !accountName.MatchString(name) {
			return 0, errAccountName
		}
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
	limit := limitFlags(flags, 100)
	return func(ctx context.Context, proc process) (err error) {
		p := accountsdb.InsertKeyParams{Mode: *mode, Name: *name, Scopes: strings.Split(*scopes, ",")}
		for _, s := range p.Scopes {
			if !slices.Contains(Scopes, s) {
				return fmt.Errorf("no scope %q; there are %s", s, strings.Join(Scopes, ", "))
			}
		}
		switch {
		case *account == "":
			return errors.New("-account is missing: the name of the account that the key belongs to")
		case len(*name) > 200:
			return errors.New("-name has at most 200 bytes")
		case *mode != "test" && *mode != "live":
			return errors.New("-mode must be test or live")
		case *valid < 0:
			return errors.New("-valid cannot be negative")
		case *valid > 0:
			p.ExpiresAt = new(time.Now().Add(*valid).UTC())
		}
		if p.Rate, p.RateWindow, err = limit(); err != nil {
			return err
		}
		return proc.withPrimary(ctx, func(conn *pgx.Conn) (err error) {
			q := accountsdb.New(conn)
			if p.Account, err = accountOf(ctx, q, *account); err != nil {
				return err
			}
			return proc.insertKey(ctx, q, p)
		})
	}
}

// limitFlags declares the flags of a key's limit, as the columns have it.
func limitFlags(flags *flag.FlagSet, rate int) func() (requests, seconds int32, err error) {
	flags.IntVar(&rate, "rate", rate, "`requests` in a window, of all processes of one Redis together; 0: no limit")
	window := flags.Duration("window", time.Second, "of the rate, in whole seconds, as 1m")
	return func() (int32, int32, error) {
		switch {
		case rate < 0 || rate > 1_000_000:
			return 0, 0, errors.New("-rate must be given, from 0 (no limit) to 1000000")
		case *window < time.Second || *window > 24*time.Hour || *window%time.Second != 0:
			return 0, 0, errors.New("-window must be whole seconds, from 1s to 24h")
		case rate == 0:
			return 0, 0, nil
		}
		return int32(rate), int32(*window / time.Second), nil
	}
}

// limitText shows a limit as it is kept.
func limitText(rate, window int32) string {
	if rate == 0 {
		return "none"
	}
	return fmt.Sprintf("%d/%s", rate, time.Duration(window)*time.Second)
}

// limitKey is `ordergate keys limit`. Processes remember a key, so that the new limit holds a little later, for a full bucket. Repeating it does no harm.
func limitKey(flags *flag.FlagSet) runner {
	limit := limitFlags(flags, -1)
	return func(ctx context.Context, proc process) error {
		id, err := keyID(proc.args[0])
		if err != nil {
			return err
		}
		p := accountsdb.LimitKeyParams{ID: id}
		if p.Rate, p.RateWindow, err = limit(); err != nil {
			return err
		}
		return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
			n, err := accountsdb.New(conn).LimitKey(ctx, p)
			switch {
			case err != nil:
				return fmt.Errorf("limit key: %w", err)
			case n == 0:
				return noKey(id)
			}
			_, err = fmt.Fprintf(proc.stdout, "key %s has the limit %s: within 5 s, and in a process that the primary does not answer within a minute\n", order.ID(id).Format(order.PrefixKey), limitText(p.Rate, p.RateWindow))
			return err
		})
	}
}

// revokeKey is `ordergate keys revoke`. Processes remember a key (edge.Authenticator), so that it ends a little later. Repeating it does no
// harm.
func revokeKey(ctx context.Context, proc process) error {
	id, err := keyID(proc.args[0])
	if err != nil {
		return err
	}
	return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
		n, err := accountsdb.New(conn).RevokeKey(ctx, id)
		switch {
		case err != nil:
			return fmt.Errorf("revoke key: %w", err)
		case n == 0:
			return noKey(id)
		}
		_, err = fmt.Fprintf(proc.stdout, "key %s is revoked: it is refused within 5 s, and by a process that the primary does not answer within a minute, or once its replicas know of it\n",
			order.ID(id).Format(order.PrefixKey))
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
		return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
			q := accountsdb.New(conn)
			old, err := q.GetKey(ctx, id)
			if errors.Is(err, pgx.ErrNoRows) {
				return noKey(id)
			}
			if err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			if old.RevokedAt != nil || old.ExpiresAt != nil && old.ExpiresAt.Before(time.Now()) {
				return errors.New("the key is no longer valid: create another one")
			}
			if err = proc.insertKey(ctx, q, accountsdb.InsertKeyParams{
				Account: old.Account, Mode: old.Mode, Name: old.Name, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt, Rate: old.Rate, RateWindow: old.RateWindow,
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

func noKey(id uuid.UUID) error {
	return fmt.Errorf("no key %s: ordergate keys list", order.ID(id).Format(order.PrefixKey))
}

// insertKey makes a key of 256 random bits and prints it.
func (proc process) insertKey(ctx context.Context, q *accountsdb.Queries, p accountsdb.InsertKeyParams) error {
	idSecret, err := proc.cfg.idSecret()
	if err != nil {
		return err
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	text := "og_" + p.Mode + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	hash := sha256.Sum256([]byte(text))
	p.ID, p.Hash = uuid.UUID(order.NewIDs(SecretFor(idSecret, "ids")).Mint(time.Now(), p.Account)), hash[:]
	if err := q.InsertKey(ctx, p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(proc.stdout, "id   %s\nkey  %s  (shown once)\n", order.ID(p.ID).Format(order.PrefixKey), text)
	return err
}

func listKeys(ctx context.Context, proc process) error {
	return proc.withPrimary(ctx, func(conn *pgx.Conn) error {
		rows, err := accountsdb.New(conn).ListKeys(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(proc.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tACCOUNT\tMODE\tNAME\tSCOPES\tLIMIT\tSTATE")
		for _, k := range rows {
			state := "valid"
			switch {
			case k.RevokedAt != nil:
				state = "revoked " + k.RevokedAt.UTC().Format(time.RFC3339)
			case k.ExpiresAt != nil && !k.ExpiresAt.After(time.Now()):
				state = "expired " + k.ExpiresAt.UTC().Format(time.RFC3339)
			case k.ExpiresAt != nil:
				state = "until " + k.ExpiresAt.UTC().Format(time.RFC3339)
			}
			id, scopes := order.ID(k.ID).Format(order.PrefixKey), strings.Join(k.Scopes, ",")
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, k.AccountName, k.Mode, k.Name, scopes, limitText(k.Rate, k.RateWindow), state)
		}
		return w.Flush()
	})
}
