package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // banner.txt
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/ordergate/ordergate/internal/devstack"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/panics"
	"github.com/ordergate/ordergate/internal/rate"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/sql"
)

const (
	simulatorName = "psp" // in the stack of `run`
	// DemoKey is accepted by `ordergate run` alone; it never stands in a database. The other demo keys are refused with AUTH_005 where
	// they write, where they read, AUTH_003 and AUTH_004.
	DemoKey     = "og_test_demo_key_for_local_use_only"
	demoReads   = "og_test_demo_reads_key_for_local_use_only"
	demoWrites  = "og_test_demo_writes_key_for_local_use_only"
	demoExpired = "og_test_demo_expired_key_for_local_use_only"
	demoRevoked = "og_test_demo_revoked_key_for_local_use_only"
	demoAccount = "demo"
	minFree     = 256 << 20 // bytes: the first start takes 150 MB, each server's log grows to 512 MB under load
	maxLogSize  = 10        // MB of ordergate.log; the last two full ones are kept beside it
)

// demoLimit shows its headers, and stands in nobody's way: a loop of one client on this machine makes some thousand requests a second.
var demoLimit = rate.Limit{Requests: 10_000, Window: time.Second}

// defaults are the settings of a subcommand that differ from those of a production process.
var defaults = map[string]map[string]string{"run": {
	"ORDERGATE_ENV":             development,
	"ORDERGATE_PAYMENT_TIMEOUT": "8s", // so that a newcomer sees its end
	"ORDERGATE_DRAIN_DELAY":     "0s", // nobody balances here
	"ORDERGATE_ORIGINS":         edge.Localhost,
}}

// run is `ordergate run`: it starts the servers and the payment simulator as child processes, and is API and worker on them itself.
// Data stays in its folder; the next run continues with it, however this one ended.
func run(ctx context.Context, proc process) (err error) {
	cfg, out := &proc.cfg, proc.stdout
	say := func(line string) { fmt.Fprintln(out, " ", line) }
	begin := time.Now()
	fmt.Fprintln(out, "Ordergate is starting")
	if cfg.DataDir, err = filepath.Abs(cfg.dataDir()); err != nil {
		return err
	}
	defer func() { err = devstack.DiskFull(cfg.DataDir, err) }()
	if err = devstack.Free(cfg.DataDir); err != nil {
		return fmt.Errorf("cannot use the data folder (ORDERGATE_DATA_DIR): %w", err)
	}
	if err = takeAddresses(ctx, cfg, say); err != nil {
		return err
	}
	if err = devstack.Install(ctx, out); err != nil {
		return err
	}
	if cfg.Secret, err = keptSecret(cfg.DataDir); err != nil {
		return err
	}
	if cfg.ProviderSecret, err = keptProviderSecret(cfg.DataDir); err != nil {
		return err
	}
	stopping := func() { fmt.Fprintln(out, "Stopping; your data stays in", cfg.DataDir) }
	self, err := os.Executable()
	if err != nil {
		return err
	}
	simulator := devstack.Program{
		Name: simulatorName, URL: cfg.PSPURL,
		Command: func() *exec.Cmd {
			cmd := exec.Command(self, "psp") //nolint:noctx // the stack ends it, in its order
			cmd.Env = append(os.Environ(), "ORDERGATE_PSP_ADDR="+cfg.PSPAddr, "ORDERGATE_PSP_DIR="+filepath.Join(cfg.DataDir, "psp"),
				"ORDERGATE_PSP_CALLBACK_URL="+localURL(cfg.Addr)+"/v1/provider-callbacks/psp", "ORDERGATE_PROVIDER_SECRET="+cfg.ProviderSecret)
			return cmd
		},
		Ready: func(ctx context.Context) error { return get(ctx, cfg.PSPURL+"/v1/ledger", io.Discard) },
	}
	stack, err := devstack.Start(ctx, devstack.Config{
		Dir: cfg.DataDir, Replicas: []devstack.Replica{{Name: "replica"}}, Programs: []devstack.Program{simulator},
		MinFree: minFree, Progress: say,
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
	sample, err := sampleAccount(ctx, *cfg, demoAccount)
	if err != nil {
		return err
	}
	say(fmt.Sprintf("the catalogue has %d products", sample.products))
	logs := &lumberjack.Logger{Filename: filepath.Join(cfg.DataDir, "ordergate.log"), MaxSize: maxLogSize, MaxBackups: 2}
	defer func() { _ = logs.Close() }()
	if _, err = fmt.Fprintf(logs, `{"level":"info","time":"%s","msg":"starting"}`+"\n", begin.UTC().Format(time.RFC3339Nano)); err != nil {
		return fmt.Errorf("cannot write the log: %w", err)
	}
	proc.logs = logs
	demo := demoKeys(order.Owner{Account: sample.account, Mode: "test"}, begin)
	return proc.withComponents(ctx, true, func(ctx context.Context, c *Components) error {
		c.faults = cfg.Env == development
		addr, err := net.ResolveTCPAddr("tcp", cfg.Addr)
		c.local = err == nil && addr.IP.IsLoopback() // its keys are known to everybody
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			defer panics.Sync(c.tel.Log)
			return c.Work(ctx)
		})
		g.Go(func() error {
			defer panics.Sync(c.tel.Log)
			superviseServers(ctx, stack, out, c.tel.Log)
			return nil
		})
		g.Go(func() error {
			defer panics.Sync(c.tel.Log)
			return c.serve(ctx, demo, DemoKey, func() {
				api, console := localURL(cfg.Addr), "off (ORDERGATE_CONSOLE)"
				if cfg.showsConsole() {
					console = api + "/console"
				}
				fmt.Fprintf(out, banner, time.Since(begin).Seconds(), console, api, api, localURL(cfg.AdminAddr), DemoKey, cfg.PSPURL, cfg.DataDir, api, DemoKey, firstSKU)
			})
		})
		return g.Wait()
	})
}

// demoKeys has a key of each kind: one with all scopes, one that reads alone, one that writes alone, one that has expired, one that is revoked.
func demoKeys(owner order.Owner, past time.Time) map[string]*edge.Key {
	reads := slices.DeleteFunc(slices.Clone(Scopes), func(scope string) bool { return !strings.HasSuffix(scope, ":read") })
	writes := slices.DeleteFunc(slices.Clone(Scopes), func(scope string) bool { return strings.HasSuffix(scope, ":read") })
	keys := map[string]*edge.Key{
		DemoKey:     {Scopes: Scopes, Limit: demoLimit},
		demoReads:   {Scopes: reads, Limit: demoLimit},
		demoWrites:  {Scopes: writes, Limit: demoLimit},
		demoExpired: {Scopes: Scopes, ExpiresAt: &past},
		demoRevoked: {Scopes: Scopes, RevokedAt: &past},
	}
	for text, key := range keys {
		hash := sha256.Sum256([]byte(text)) // a key in the database has an id of its own; these have the same one at every start
		key.ID, key.Owner = order.ID(hash[:16]).Format(order.PrefixKey), owner
	}
	return keys
}

// orRunning is c, or without a primary in it: c with the primary and the provider of the stack that `ordergate run` runs in this folder.
func (c Config) orRunning() (Config, error) {
	if c.PrimaryURL != "" {
		return c, nil
	}
	primary, programs, err := devstack.Running(c.dataDir())
	if err != nil {
		return c, fmt.Errorf("ORDERGATE_PRIMARY_URL is not set, and %w: start it with `make run`, or set ORDERGATE_DATA_DIR to the folder that it printed as Data", err)
	}
	c.PrimaryURL, c.PSPURL = primary, cmp.Or(c.PSPURL, programs[simulatorName])
	return c, nil
}

// dataDir is the folder of the stack that `ordergate run` runs: DataDir, or that of the working folder.
func (c Config) dataDir() string { return cmp.Or(c.DataDir, devstack.DataDir(".")) }

// idSecret is the secret of c that ids are made with, or without a primary in c: that of the stack that `ordergate run` runs in this folder.
func (c Config) idSecret() (string, error) {
	if c.PrimaryURL != "" {
		return c.Secret, nil
	}
	secret, err := readSecret(filepath.Join(c.dataDir(), "secret"))
	if err != nil || secret == "" {
		return "", fmt.Errorf("cannot read the secret of the stack: %w", cmp.Or(err, errors.New("it is gone or torn")))
	}
	return secret, nil
}

// takeAddresses refuses, before anything is started, addresses that are taken; the simulator goes to another port. It sets the addresses
// in cfg to what listening gave.
func takeAddresses(ctx context.Context, cfg *Config, say func(string)) error {
	all := map[string]*string{"ORDERGATE_ADDR": &cfg.Addr, "ORDERGATE_ADMIN_ADDR": &cfg.AdminAddr, "ORDERGATE_PSP_ADDR": &cfg.PSPAddr}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l, err := listen(ctx, name, *all[name])
		if err != nil && name == "ORDERGATE_PSP_ADDR" {
			say(err.Error() + ": the simulator takes another port")
			l, err = listen(ctx, name, "127.0.0.1:0")
		}
		if err != nil {
			return fmt.Errorf("%w\nchoose others: ORDERGATE_ADDR=127.0.0.1:9080 ORDERGATE_ADMIN_ADDR=127.0.0.1:9081 make run", err)
		}
		defer func() { _ = l.Close() }() // all are held until the last has one
		*all[name] = l.Addr().String()
	}
	cfg.PSPURL = localURL(cfg.PSPAddr)
	return nil
}

// localURL leads from this machine to a listener, also to one on all addresses.
func localURL(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// banner is printed when the API listens.
//
//go:embed banner.txt
var banner string

// keptSecret reads the secret of a data folder, or makes one where there is no data yet: with another secret every id that was given
// out would be refused.
func keptSecret(dir string) (string, error) {
	path := filepath.Join(dir, "secret")
	if text, err := readSecret(path); err != nil || text != "" {
		return text, err
	}
	if _, err := os.Stat(filepath.Join(dir, "primary")); err == nil {
		return "", fmt.Errorf("%s is gone or torn, and with it the ids of all orders: restore it, or remove the folder to begin anew", path)
	}
	return makeSecret(path)
}

// keptProviderSecret reads the secret that signs the simulator's callbacks, or makes one. Nothing that is kept depends on it.
func keptProviderSecret(dir string) (string, error) {
	path := filepath.Join(dir, "provider-secret")
	if text, err := readSecret(path); err != nil || text != "" {
		return text, err
	}
	return makeSecret(path)
}

// readSecret returns the secret in a file; "" if the file is gone or torn.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if _, err := hex.DecodeString(text); err == nil && len(text) >= minSecret {
		return text, nil
	}
	return "", nil
}

func makeSecret(path string) (string, error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	if err := devstack.MakeDir(filepath.Dir(path)); err != nil {
		return "", err
	}
	text := hex.EncodeToString(secret[:])
	return text, devstack.WriteFile(path, []byte(text+"\n"))
}

// superviseServers restarts child processes that ended, a second after each failure, until ctx ends. Meanwhile reads go on without
// Redis or the replica; without the primary nothing does.
func superviseServers(ctx context.Context, stack *devstack.Stack, out io.Writer, log panics.Log) {
	var restarts sync.WaitGroup // side by side: a replica may need the primary
	defer restarts.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case exit := <-stack.Exits():
			said := firstLine(exit.Err)
			fmt.Fprintf(out, "%s\n%s is started again\n", said, exit.Name)
			restarts.Go(func() {
				defer panics.Sync(log)
				for err := stack.Restart(ctx, exit.Name); err != nil; err = stack.Restart(ctx, exit.Name) {
					if line := firstLine(err); line != said && ctx.Err() == nil {
						said = line
						fmt.Fprintln(out, "The start failed and is tried again:", said)
					}
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Second):
					}
				}
				fmt.Fprintf(out, "%s is back\n", exit.Name)
			})
		}
	}
}

// firstLine leaves out the log's tail, which stands in the log.
func firstLine(err error) string { return strings.SplitN(err.Error(), "\n", 2)[0] }
