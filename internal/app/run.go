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
	"gopkg.in/natefinch/lumberjack.v2"

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

const (
	minFree    = 256 << 20 // bytes: the first start takes 150 MB, each server's log grows to 512 MB under load
	maxLogSize = 10        // MB of ordergate.log; the last two full ones are kept beside it
)

// run is `ordergate run`: it starts the servers and the payment simulator as child processes and serves and works on them, all in
// one process. Data stays in its folder; the next run continues with it, however this one ended.
func run(ctx context.Context, proc process) (err error) {
	cfg, out := &proc.cfg, proc.stdout
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
	defer func() { err = devstack.DiskFull(cfg.DataDir, err) }()
	if err = devstack.Free(cfg.DataDir); err != nil {
		return err
	}
	if err = checkListeners(ctx, *cfg); err != nil {
		return err
	}
	if err = devstack.Install(ctx, out); err != nil {
		return err
	}
	if cfg.Secret, err = keptSecret(cfg.DataDir); err != nil {
		return err
	}
	stopping := func() { fmt.Fprintln(out, "Stopping; your data stays in", cfg.DataDir) }
	stack, err := devstack.Start(ctx, devstack.Config{
		Dir: cfg.DataDir, Replicas: []devstack.Replica{{Name: "replica"}}, MinFree: minFree, Progress: func(s string) { say("%s", s) },
	})
	if err != nil {
		if ctx.Err() != nil {
			stopping()
		}
		return err
	}
	defer func() {
		err = devstack.DiskFull(cfg.DataDir, err) // Stop may free space
		stopping()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = stack.Stop(ctx)
	}()
	cfg.PrimaryURL, cfg.ReplicaURLs, cfg.RedisURL = stack.PrimaryURL, stack.ReplicaURLs, stack.RedisURL
	say("migrating the database")
	if err = sql.Migrate(ctx, cfg.PrimaryURL); err != nil {
		return err
	}
	account, products, err := sampleAccount(ctx, cfg.PrimaryURL, demoAccount)
	if err != nil {
		return err
	}
	say("the catalogue has %d products", products)
	logs := &lumberjack.Logger{Filename: filepath.Join(cfg.DataDir, "ordergate.log"), MaxSize: maxLogSize, MaxBackups: 2}
	defer func() { _ = logs.Close() }()
	if _, err = fmt.Fprintf(logs, `{"level":"info","time":"%s","msg":"starting"}`+"\n", begin.UTC().Format(time.RFC3339Nano)); err != nil {
		return fmt.Errorf("cannot write the log: %w", err)
	}
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
	cfg.PSPURL, proc.logs = "http://"+simulator.addr, logs
	demo := map[string]*edge.Key{DemoKey: {ID: "demo", Owner: order.Owner{Account: account, Mode: "test"}, Scopes: Scopes}}
	return proc.withComponents(ctx, true, true, func(ctx context.Context, c *Components) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return c.work(ctx) })
		g.Go(func() error { return c.serve(ctx, demo) })
		g.Go(func() error { superviseServers(ctx, stack, out); return nil })
		g.Go(func() error { simulator.supervise(ctx, out); return nil })
		g.Go(func() error {
			if err := awaitHTTP(ctx, "http://"+cfg.Addr+"/v1/errors"); err != nil {
				return err
			}
			fmt.Fprintf(out, banner, time.Since(begin).Seconds(), cfg.Addr, cfg.AdminAddr, cfg.PSPURL, DemoKey, cfg.Addr, cfg.DataDir, cfg.Addr, DemoKey, firstSKU)
			return nil
		})
		return g.Wait()
	})
}

// checkListeners refuses, before anything is started, addresses that are taken or the same.
func checkListeners(ctx context.Context, cfg Config) error {
	listeners := map[string]string{"ORDERGATE_ADDR": cfg.Addr, "ORDERGATE_ADMIN_ADDR": cfg.AdminAddr}
	for name, addr := range listeners {
		l, err := listen(ctx, name, addr)
		if err != nil {
			return fmt.Errorf("%w\nset ORDERGATE_ADDR and ORDERGATE_ADMIN_ADDR to addresses that are free", err)
		}
		_ = l.Close()
	}
	listeners["ORDERGATE_PSP_ADDR"] = cfg.PSPAddr
	return checkAddresses(listeners)
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

// keptSecret reads the secret of a data folder, or makes one where there is no data yet: with another secret every id that was given
// out would be refused.
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

// superviseServers restarts servers that ended, as often as it takes. Meanwhile reads go on without Redis or the replica; without
// the primary nothing does.
func superviseServers(ctx context.Context, stack *devstack.Stack, out io.Writer) {
	var restarts sync.WaitGroup // side by side: a replica may need the primary
	defer restarts.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case exit := <-stack.Exits():
			fmt.Fprintf(out, "%v\n%s is started again\n", exit, exit.Name)
			restarts.Go(func() {
				if retry(ctx, out, func() error { return stack.Restart(ctx, exit.Name) }) {
					fmt.Fprintf(out, "%s is back\n", exit.Name)
				}
			})
		}
	}
}

// retry calls try until it succeeds, a second after each failure. It returns false if ctx ended first.
func retry(ctx context.Context, out io.Writer, try func() error) bool {
	for {
		err := try()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
			fmt.Fprintln(out, "The start failed and is tried again:", err)
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
	err       error         // result of the process, once done
	moved     bool          // the address is not the given one, which is taken
}

// newSimulator chooses the address: the given one, or any if that is taken.
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
	if err = awaitHTTP(ready, "http://"+s.addr+"/livez"); err != nil {
		s.stop()
		return fmt.Errorf("the payment simulator does not start, ordergate.log says why: %w", err)
	}
	return nil
}

// supervise starts the process again whenever it ends, until ctx does.
func (s *simulatorProcess) supervise(ctx context.Context, out io.Writer) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.done:
			fmt.Fprintln(out, "The payment simulator ended and is started again:", s.err)
			if !retry(ctx, out, func() error { return s.start(ctx) }) {
				return
			}
		}
	}
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

// awaitHTTP returns when a GET of url is answered.
func awaitHTTP(ctx context.Context, url string) error {
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
