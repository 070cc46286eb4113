package app

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/sql"
)

const (
	// DemoKey is accepted by `ordergate run` alone; it never stands in a database.
	DemoKey     = "og_test_demo_key_for_local_use_only"
	demoAccount = "demo"
)

// demoDefaults are what `ordergate run` sets otherwise than a production process.
var demoDefaults = map[string]string{
	"ORDERGATE_PAYMENT_TIMEOUT": "8s", // so that a newcomer sees its end
	"ORDERGATE_DRAIN_DELAY":     "0s", // nobody balances here
}

// run is `ordergate run`: it starts the stack and the payment simulator as child processes and runs serve and worker on them, all
// in one process. Data stays in its folder; the next run goes on where this one stopped, however it stopped.
func run(ctx context.Context, proc process, args []string) error {
	if err := parse(newFlags("run"), args); err != nil {
		return err
	}
	cfg, out := proc.cfg, proc.stdout
	say := func(format string, a ...any) { fmt.Fprintf(out, "  "+format+"\n", a...) }
	begin := time.Now()
	fmt.Fprintln(out, "Ordergate is starting")
	if cfg.DataDir == "" {
		project, err := os.Getwd()
		if err != nil {
			return err
		}
		cfg.DataDir = devstack.DataDir(project)
	}
	if err := devstack.Free(cfg.DataDir); err != nil {
		return err
	}
	for name, addr := range map[string]string{"ORDERGATE_ADDR": cfg.Addr, "ORDERGATE_ADMIN_ADDR": cfg.AdminAddr} {
		l, err := listen(ctx, name, addr)
		if err != nil {
			return fmt.Errorf("%w\nset ORDERGATE_ADDR and ORDERGATE_ADMIN_ADDR to addresses that are free", err) // before anything is started
		}
		_ = l.Close()
	}
	if err := devstack.Install(ctx, out); err != nil {
		return err
	}
	secret, err := keptSecret(cfg.DataDir)
	if err != nil {
		return err
	}
	stopping := func() { fmt.Fprintln(out, "Stopping; your data stays in", cfg.DataDir) }
	stack, err := devstack.Start(ctx, devstack.Config{
		Dir: cfg.DataDir, Replicas: []devstack.Replica{{Name: "replica"}}, Progress: func(s string) { say("%s", s) },
	})
	if err != nil {
		if ctx.Err() != nil {
			stopping()
		}
		return err
	}
	defer func() {
		stopping()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = stack.Stop(ctx)
	}()
	cfg.Secret = secret
	cfg.PrimaryURL, cfg.ReplicaURLs, cfg.RedisURL = stack.PrimaryURL, stack.ReplicaURLs, stack.RedisURL
	say("migrating the database")
	if err = sql.Migrate(ctx, cfg.PrimaryURL); err != nil {
		return err
	}
	var account int32
	if err = withConn(ctx, cfg.PrimaryURL, func(conn *pgx.Conn) error {
		if account, err = accountOf(ctx, accountsdb.New(conn), demoAccount); err != nil {
			return err
		}
		n, err := loadCatalogue(ctx, conn, account)
		say("the catalogue has %d products", n)
		return err
	}); err != nil {
		return err
	}
	logs, err := os.OpenFile(filepath.Join(cfg.DataDir, "ordergate.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }()
	say("starting the payment simulator")
	simulator, err := newSimulator(ctx, cfg.PSPAddr, filepath.Join(cfg.DataDir, "psp"), logs)
	if err != nil {
		return err
	}
	if err = simulator.start(ctx); err != nil {
		return err
	}
	defer simulator.stop()
	if simulator.moved {
		say("%s is taken: the simulator is at %s", cfg.PSPAddr, simulator.addr)
	}
	cfg.PSPURL = "http://" + simulator.addr
	proc.cfg, proc.logs = cfg, logs
	demo := map[string]*edge.Key{DemoKey: {ID: "demo", Owner: order.Owner{Account: account, Mode: "test"}, Scopes: Scopes}}
	return proc.with(ctx, true, func(ctx context.Context, p *parts) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return p.worker(ctx) })
		g.Go(func() error { return p.serve(ctx, demo) })
		g.Go(func() error { revive(ctx, stack, out); return nil })
		g.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-simulator.done:
					fmt.Fprintln(out, "The payment simulator ended and is started again:", simulator.err)
					if !again(ctx, out, func() error { return simulator.start(ctx) }) {
						return nil
					}
				}
			}
		})
		g.Go(func() error {
			if err := answers(ctx, "http://"+cfg.Addr+"/v1/errors"); err != nil {
				return err
			}
			fmt.Fprintf(out, banner, time.Since(begin).Seconds(), cfg.Addr, cfg.AdminAddr, cfg.PSPURL, DemoKey, cfg.Addr, cfg.DataDir, cfg.Addr, DemoKey, firstSKU)
			return nil
		})
		return g.Wait()
	})
}

const banner = `
Ordergate is ready, started in %.1f s.

  API       http://%s
  Admin     http://%s  (/livez /readyz /metrics /debug/pprof)
  Payments  %s/v1/ledger  (the simulated provider's books)
  API key   %s  (accepted here alone)
  Contract  http://%s/openapi.json  (all error codes: /v1/errors)
  Data      %s  (ordergate.log has a JSON line for each request and message)

Place an order and wait until it is decided:

  curl -i http://%s/v1/orders \
    -H 'Authorization: Bearer %s' \
    -H "Idempotency-Key: $(date +%%s%%N)" \
    -H 'Content-Type: application/json' \
    -H 'Prefer: wait=10' \
    -d '{"currency":"EUR","customer_ref":"customer-1","lines":[{"sku":"%s","quantity":1}],"payment":{"method_token":"pm_ok"}}'

Look at it again, and at how it came about, by its id: GET /v1/orders/{id}, /v1/orders/{id}/events, /v1/orders/{id}/saga.
Other ends: pm_declined, pm_timeout, pm_error, pm_slow, pm_flaky, pm_timeout_charged, pm_duplicate (docs/running.md says what they do).
One primary without a synchronous standby: losing this disk loses orders. Ctrl-C stops everything.
`

// keptSecret reads the secret of a data folder, or makes it where there is no data yet: under another one every id that was given
// out is refused.
func keptSecret(dir string) (string, error) {
	path := filepath.Join(dir, "secret")
	b, err := os.ReadFile(path)
	text := strings.TrimSpace(string(b))
	_, wellFormed := hex.DecodeString(text)
	switch _, data := os.Stat(filepath.Join(dir, "primary")); {
	case err == nil && wellFormed == nil && len(text) >= minSecret:
		return text, nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return "", err
	case data == nil:
		return "", fmt.Errorf("%s is gone or torn, and with it the ids of all orders: restore it, or remove the folder to begin anew", path)
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	text = hex.EncodeToString(secret[:])
	return text, devstack.WriteFile(path, []byte(text+"\n"))
}

// revive starts servers again that died, however often it takes. Meanwhile reads go on without Redis or the replica; without the
// primary nothing does.
func revive(ctx context.Context, stack *devstack.Stack, out io.Writer) {
	var reviving sync.WaitGroup // each for itself: a replica may need the primary
	defer reviving.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case death := <-stack.Died():
			fmt.Fprintf(out, "%v\n%s is started again\n", death, death.Name)
			reviving.Go(func() {
				if again(ctx, out, func() error { return stack.Revive(ctx, death.Name) }) {
					fmt.Fprintf(out, "%s is back\n", death.Name)
				}
			})
		}
	}
}

// again tries until it works, a second after each failure; false: ctx ended first.
func again(ctx context.Context, out io.Writer, try func() error) bool {
	for {
		err := try()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
			fmt.Fprintln(out, "That failed and is tried again:", err)
		}
	}
}

// simulatorProcess is `ordergate psp` as a child process. It ends with our end of its standard input, so also when we are killed.
type simulatorProcess struct {
	addr, dir string
	logs      io.Writer
	input     io.Closer
	process   *os.Process
	done      chan struct{} // of this process; closed when it has ended
	err       error         // how it ended
	moved     bool          // the address is not the given one, which is taken
}

// newSimulator settles the address: the given one, or any if that is taken.
func newSimulator(ctx context.Context, addr, dir string, logs io.Writer) (*simulatorProcess, error) {
	s := &simulatorProcess{dir: dir, logs: logs}
	l, err := listen(ctx, "payment simulator", addr)
	if err != nil {
		s.moved = true
		if l, err = listen(ctx, "payment simulator", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	s.addr = l.Addr().String()
	return s, l.Close()
}

// start starts the process and waits until it answers.
func (s *simulatorProcess) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, "psp", "-with-parent") // ended by stop, in its order
	cmd.Env = append(os.Environ(), "ORDERGATE_PSP_ADDR="+s.addr, "ORDERGATE_PSP_DIR="+s.dir)
	cmd.Stdout, cmd.Stderr = s.logs, s.logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C at the terminal is for us
	if s.input, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err = cmd.Start(); err != nil {
		return fmt.Errorf("payment simulator: %w", err)
	}
	s.process, s.done = cmd.Process, make(chan struct{})
	ready, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	go func(done chan struct{}) {
		s.err = cmd.Wait()
		close(done)
		cancel()
	}(s.done)
	if err = answers(ready, "http://"+s.addr+"/livez"); err != nil {
		s.stop()
		return fmt.Errorf("the payment simulator does not start, ordergate.log says why: %w", err)
	}
	return nil
}

// stop ends the process.
func (s *simulatorProcess) stop() {
	_ = s.input.Close()
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.process.Kill()
		<-s.done
	}
}

// answers waits until a GET of url is answered.
func answers(ctx context.Context, url string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, bufio.NewReader(res.Body))
			_ = res.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
