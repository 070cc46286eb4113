// Package app puts the parts together: it alone knows all of them.
package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/internal/psp"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/sql"
)

const usage = `Ordergate, an API gateway for orders.

  ordergate run        everything on this machine: PostgreSQL with a replica, Redis, payment simulator, gateway
  ordergate serve      the API
  ordergate worker     relay, consumers, saga steps
  ordergate migrate    brings the database to the newest schema (-sample ACCOUNT: with a sample catalogue)
  ordergate psp        the payment provider simulator
  ordergate keys       create, list, revoke, rotate API keys
  ordergate parked     list or retry messages that could not be handled
  ordergate probe URL  succeeds if a GET of the URL is answered 200, for health checks
  ordergate version    what was built

serve, worker, migrate, keys and parked take their addresses from the environment: docs/running.md.
`

// Main runs a subcommand until it is done or ctx ends. Logs go to stderr as JSON lines, what a person asked for to stdout.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	commands := map[string]func(context.Context, process, []string) error{
		"run": run, "serve": serveAlone, "worker": workAlone, "migrate": migrate, "psp": simulate, "keys": keys, "parked": parked, "probe": probe,
	}
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	if args[0] == "version" || args[0] == "--version" {
		build, _ := debug.ReadBuildInfo()
		_, err := fmt.Fprintln(stdout, "ordergate", build.Main.Version, build.GoVersion)
		return err
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("no subcommand %q\n\n%s", args[0], usage)
	}
	var defaults map[string]string
	if args[0] == "run" {
		defaults = demoDefaults
	}
	cfg, err := ReadConfig(defaults)
	if err != nil {
		return err
	}
	err = command(ctx, process{cfg, stdout, stderr}, args[1:])
	if errors.Is(err, context.Canceled) && ctx.Err() != nil || errors.Is(err, flag.ErrHelp) {
		err = nil // it was asked to stop, or what it takes
	}
	return err
}

// process is what a subcommand is given.
type process struct {
	cfg    Config
	stdout io.Writer
	logs   io.Writer
}

// watched runs fn with telemetry that logs to the process's logs.
func (proc process) watched(ctx context.Context, fn func(*telemetry.Telemetry) error) error {
	tel, err := telemetry.New(ctx, proc.cfg.LogLevel, zapcore.Lock(zapcore.AddSync(proc.logs)))
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		tel.Close(ctx)
	}()
	log.SetFlags(0)
	log.SetOutput(stdLog{tel.Log})
	return fn(tel)
}

// stdLog takes what libraries print: net/http tells there of bytes that a provider sent unasked, which are nobody's business.
type stdLog struct{ log *zap.Logger }

func (l stdLog) Write(b []byte) (int, error) {
	said, _, _ := strings.Cut(string(b), " starting with ")
	l.log.Warn("library", zap.String("said", said[:min(len(said), 200)]))
	return len(b), nil
}

// serveAlone is `ordergate serve`.
func serveAlone(ctx context.Context, proc process, args []string) error {
	if err := parse(newFlags("serve"), args); err != nil {
		return err
	}
	return proc.with(ctx, false, func(ctx context.Context, p *parts) error { return p.serve(ctx, nil) })
}

// workAlone is `ordergate worker`.
func workAlone(ctx context.Context, proc process, args []string) error {
	if err := parse(newFlags("worker"), args); err != nil {
		return err
	}
	return proc.with(ctx, true, func(ctx context.Context, p *parts) error { return p.worker(ctx) })
}

// with runs fn with the configuration's parts and the admin listener beside it. When ctx ends, the admin listener outlives fn, so
// that a balancer sees the process stop.
func (proc process) with(ctx context.Context, worker bool, fn func(context.Context, *parts) error) error {
	if err := Check(proc.cfg, worker); err != nil {
		return err
	}
	return proc.watched(ctx, func(tel *telemetry.Telemetry) error {
		tel.Log.Info("configuration", zap.Any("settings", proc.cfg.Masked()))
		p, err := newParts(ctx, proc.cfg, tel)
		if err != nil {
			return err
		}
		defer p.close()
		outlive, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return p.admin(outlive, ctx.Done(), worker) })
		g.Go(func() error { p.reader.Subscribe(outlive); return nil })
		g.Go(func() error {
			defer stop()
			return fn(ctx, p)
		})
		return g.Wait()
	})
}

// migrate is `ordergate migrate`.
func migrate(ctx context.Context, proc process, args []string) error {
	cfg, out := proc.cfg, proc.stdout
	flags := newFlags("migrate")
	sample := flags.String("sample", "", "the account that gets a sample catalogue in its test mode; made if it is not there")
	if err := parse(flags, args); err != nil {
		return err
	}
	if cfg.PrimaryURL == "" {
		return errNoPrimary
	}
	if err := sql.Migrate(ctx, cfg.PrimaryURL); err != nil {
		return err
	}
	fmt.Fprintln(out, "schema is up to date, version", sql.Version())
	if *sample == "" {
		return nil
	}
	return withConn(ctx, cfg.PrimaryURL, func(conn *pgx.Conn) error {
		account, err := accountOf(ctx, accountsdb.New(conn), *sample)
		if err != nil {
			return err
		}
		n, err := loadCatalogue(ctx, conn, account)
		fmt.Fprintf(out, "account %s has the sample catalogue of %d products\n", *sample, n)
		return err
	})
}

// simulate is `ordergate psp`. With -with-parent it ends when its standard input does.
func simulate(ctx context.Context, proc process, args []string) error {
	flags := newFlags("psp")
	withParent := flags.Bool("with-parent", false, "end when standard input is closed")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *withParent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0) // the parent is gone, and the next one wants the ledger; every answer that was given is in it
		}()
	}
	return proc.watched(ctx, func(tel *telemetry.Telemetry) error {
		s, err := psp.New(psp.Config{Dir: proc.cfg.PSPDir, Log: tel.Log})
		if err != nil {
			return err
		}
		err = s.Serve(ctx, proc.cfg.PSPAddr)
		return errors.Join(err, s.Close())
	})
}

// probe is `ordergate probe URL`, the health check of an image that has no shell: it fails unless a GET is answered 200 within 3 s.
func probe(ctx context.Context, proc process, args []string) error {
	if len(args) != 1 {
		return errors.New("ordergate probe URL")
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(proc.stdout, io.LimitReader(res.Body, 4000))
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
