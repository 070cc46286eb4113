package main

import (
	"cmp"
	"context"
	_ "embed" // check.sql
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/internal/app"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

const (
	program = "bin/ordergate"
	onHand  = 1_000_000 // of each sku at the start
)

var secret = strings.Repeat("5", 64)

// gateway is `ordergate serve` in a process of its own, and its components in this process for measurements without HTTP.
type gateway struct {
	primary, dir, addr, psp string
	env                     []string
	key                     string // API key
	owner                   order.Owner
	skus                    []string  // products of the account
	db                      *pgx.Conn // superuser
	serving                 *process
	servers                 servers
	components              *app.Components
	tel                     *telemetry.Telemetry // of the components
	also                    []func() error       // that stop calls
	server                  http.Handler
	sent, accepted          atomic.Int64 // numbers the orders; counts those that were accepted
}

// start migrates the stack's database, gives an account products, stock and a key with a limit, and starts serve, with further
// settings of its environment.
func start(ctx context.Context, settings ...string) *gateway {
	primary := os.Getenv("ORDERGATE_TEST_PRIMARY")
	if primary == "" {
		must(errors.New("ORDERGATE_TEST_PRIMARY is not set: run `make bench-write`"))
	}
	g := &gateway{primary: primary, dir: try(os.MkdirTemp("", "ordergate-bench-")), addr: freeAddr(), psp: freeAddr()}
	g.env = append(os.Environ(), "ORDERGATE_PRIMARY_URL="+primary, "ORDERGATE_REPLICA_URLS="+os.Getenv("ORDERGATE_TEST_REPLICA"),
		"ORDERGATE_REDIS_URL="+os.Getenv("ORDERGATE_TEST_REDIS"), "ORDERGATE_REDIS_PREFIX=bench:", "ORDERGATE_SECRET="+secret,
		"ORDERGATE_ADDR="+g.addr, "ORDERGATE_PSP_URL=http://"+g.psp, "ORDERGATE_PSP_ADDR="+g.psp,
		"ORDERGATE_PSP_DIR="+filepath.Join(g.dir, "psp"))
	var out []byte
	for _, args := range [][]string{{"migrate", "-sample", "bench"}, {"keys", "create", "-account", "bench", "-rate", "1000000"}} {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env, cmd.Stderr = g.env, os.Stderr
		out = try(cmd.Output())
	}
	g.key = regexp.MustCompile(`og_test_\S+`).FindString(string(out))
	g.db, g.servers = try(pgx.Connect(ctx, g.primary)), findServers(ctx)
	g.owner = order.Owner{Account: try(accountsdb.New(g.db).GetAccount(ctx, "bench")).ID, Mode: "test"}
	g.skus = try(pgx.CollectRows(try(g.db.Query(ctx, "SELECT sku FROM stock")), pgx.RowTo[string]))
	must(pg.InTx(ctx, g.db, func(tx pgx.Tx) error { return g.fill(ctx, tx) }))
	g.serving = g.child(ctx, g.addr, settings, program, "serve")

	// The API in this process, too, with entries of its own in Redis. Its log goes to /dev/null.
	g.tel = try(telemetry.New(ctx, func(string) string { return "" }, zapcore.InfoLevel, zapcore.Lock(try(os.OpenFile(os.DevNull, os.O_WRONLY, 0)))))
	cfg := try(app.ReadConfig(g.env, nil))
	cfg.RedisPrefix = "bench-inside:"
	g.components = try(app.Assemble(ctx, cfg, g.tel))
	g.server = try(g.components.API(nil))
	return g
}

// fill adjusts the stock of each sku to onHand.
func (g *gateway) fill(ctx context.Context, tx pgx.Tx) error {
	ids := order.NewIDs([]byte("bench"))
	rec := order.Recorder{NewID: func() order.ID { return ids.Mint(time.Now(), g.owner.Account) }, Now: time.Now(), Cause: order.Cause{Operation: "bench", Actor: "operator"}}
	stock, err := inventory.Lock(ctx, tx, pg.Column(g.skus, func(sku string) order.Item { return order.Item{Owner: g.owner, SKU: sku} }), false)
	for _, level := range stock {
		if err == nil {
			err = level.Adjust(rec, rec.NewID(), onHand-level.OnHand, "bench")
		}
	}
	if err != nil {
		return err
	}
	return stock.Write(ctx, tx)
}

func freeAddr() string {
	l := try(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// process is a program that was started.
type process struct {
	name, addr, admin string
	log               *os.File // its output, without an end of its own: it may be truncated
	cmd               *exec.Cmd
	cancel            context.CancelFunc
}

// child starts a program, ours or one that has nothing to lose, its log in a file, and returns when it listens on addr; "": on its admin address.
func (g *gateway) child(ctx context.Context, addr string, settings []string, name string, args ...string) *process {
	p := &process{name: args[0], addr: addr, admin: freeAddr()}
	p.log = try(os.OpenFile(filepath.Join(g.dir, strings.ReplaceAll(addr, ":", "-")+args[0]+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600))
	ctx, p.cancel = context.WithCancel(ctx)
	p.cmd = exec.CommandContext(ctx, name, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = slices.Concat(g.env, []string{"ORDERGATE_ADMIN_ADDR=" + p.admin}, settings), p.log, p.log
	if name == program {
		p.cmd.Cancel, p.cmd.WaitDelay = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }, 20*time.Second
	}
	must(p.cmd.Start())
	if err := await(cmp.Or(addr, p.admin)); err != nil {
		said, _ := os.ReadFile(p.log.Name())
		must(fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, said))
	}
	return p
}

// end ends the program and waits for it. Ours gets SIGTERM, and 20 s.
func (p *process) end() {
	p.cancel()
	if _ = p.cmd.Wait(); p.cmd.WaitDelay > 0 && p.cmd.ProcessState.String() == "signal: killed" {
		sayf("%s: %v", p.name, p.cmd.ProcessState)
	}
	_ = p.log.Close()
}

func (p *process) cpu() time.Duration { return try(cpuOf(p.cmd.Process.Pid)) }

// metric is a metric of the process, by its name with its labels; 0 if it has none.
func (p *process) metric(name string) (value float64) {
	response, err := http.Get("http://" + p.admin + "/metrics")
	must(err)
	defer func() { _ = response.Body.Close() }()
	text := try(io.ReadAll(response.Body))
	if found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(text); found != nil {
		must(json.Unmarshal(found[1], &value))
	}
	return value
}

func await(addr string) error {
	for range 500 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return nil
		}
		<-time.After(20 * time.Millisecond)
	}
	return fmt.Errorf("nobody listens on %s", addr)
}

func (g *gateway) stop(ctx context.Context) {
	g.serving.end()
	g.components.Close()
	g.tel.Close(context.WithoutCancel(ctx))
	for _, end := range g.also {
		_ = end()
	}
	_ = os.RemoveAll(g.dir)
}

//go:embed check.sql
var checks string

// check fails if anything is oversold, lost or has a gap.
func (g *gateway) check(ctx context.Context) {
	var what string
	var n int64
	rows := try(g.db.Query(ctx, checks, g.owner.Account, g.accepted.Load(), onHand))
	_ = try(pgx.ForEachRow(rows, []any{&what, &n}, func() error {
		if n != 0 {
			return fmt.Errorf("%d %s", n, what)
		}
		return nil
	}))
}
