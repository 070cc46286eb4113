package main

import (
	"cmp"
	"context"
	_ "embed" // check.sql
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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

	"github.com/google/uuid"
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
	skus                    []string         // products of the account
	stocked                 map[string]int64 // pieces of each sku at the start
	db                      *pgx.Conn        // superuser
	serving                 *process
	servers                 servers
	components              *app.Components
	also                    []func() error // that stop calls
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
	g := &gateway{primary: primary, dir: try(os.MkdirTemp("", "ordergate-bench-")), addr: freeAddr(), psp: freeAddr(), stocked: map[string]int64{}}
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
	g.fillTo(ctx, onHand, g.skus)
	g.serving = g.child(ctx, g.addr, settings, program, "serve")

	var end func()
	g.components, end = g.assemble(ctx, "bench-inside:")
	g.also = append(g.also, func() error { end(); return nil })
	g.server = try(g.components.API(nil))
	return g
}

// assemble makes the program's components in this process, with entries of their own in Redis, until end. Their log goes to /dev/null.
func (g *gateway) assemble(ctx context.Context, prefix string) (c *app.Components, end func()) {
	tel := try(telemetry.New(ctx, func(string) string { return "" }, zapcore.InfoLevel, zapcore.Lock(try(os.OpenFile(os.DevNull, os.O_WRONLY, 0)))))
	cfg := try(app.ReadConfig(g.env, nil))
	cfg.RedisPrefix = prefix
	c = try(app.Assemble(ctx, cfg, tel))
	return c, func() {
		c.Close()
		tel.Close(context.WithoutCancel(ctx))
	}
}

// fillTo adjusts the stock of skus to as many pieces, each.
func (g *gateway) fillTo(ctx context.Context, pieces int64, skus []string) {
	must(pg.InTx(ctx, g.db, func(tx pgx.Tx) error {
		ids := order.NewIDs([]byte("bench"))
		rec := order.Recorder{NewID: func() order.ID { return ids.Mint(time.Now(), g.owner.Account) }, Now: time.Now(), Cause: order.Cause{Operation: "bench", Actor: "operator"}}
		stock, err := inventory.Lock(ctx, tx, pg.Column(skus, func(sku string) order.Item { return order.Item{Owner: g.owner, SKU: sku} }), false)
		for _, level := range stock {
			if err == nil {
				err = level.Adjust(rec, rec.NewID(), pieces-level.OnHand, "bench")
			}
		}
		if err != nil {
			return err
		}
		return stock.Write(ctx, tx)
	}))
	for _, sku := range skus {
		g.stocked[sku] = pieces
	}
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
	if name == program || args[0] == togetherArgument {
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

func (g *gateway) stop() {
	g.serving.end()
	for _, end := range g.also {
		_ = end()
	}
	_ = os.RemoveAll(g.dir)
}

//go:embed check.sql
var checks string

// check fails if anything is oversold, lost, has a gap, or has events that are not those that were written.
func (g *gateway) check(ctx context.Context) {
	var what string
	var n int64
	skus := slices.Sorted(maps.Keys(g.stocked))
	rows := try(g.db.Query(ctx, checks, g.owner.Account, g.accepted.Load(), skus, pg.Column(skus, func(sku string) int64 { return g.stocked[sku] })))
	_ = try(pgx.ForEachRow(rows, []any{&what, &n}, func() error {
		if n != 0 {
			return fmt.Errorf("%d %s", n, what)
		}
		return nil
	}))
	g.checkChains(ctx)
}

//go:embed chains.sql
var chains string

// checkChains verifies the events of each order that the program has placed.
func (g *gateway) checkChains(ctx context.Context) {
	var id, of uuid.UUID
	var e order.Event
	var events []order.Event
	verified := 0
	verify := func() error {
		if len(events) == 0 {
			return nil
		}
		verified++
		if err := order.Verify(order.ID(of), events); err != nil {
			return fmt.Errorf("the events of order %v: %w", of, err)
		}
		return nil
	}
	rows := try(g.db.Query(ctx, chains, g.owner.Account))
	into := []any{&id, &e.Version, &e.ID, &e.Type, &e.Schema, &e.Payload, &e.Cause.TraceID, &e.Cause.Operation, &e.Cause.Actor, &e.At, &e.PrevHash, &e.Hash}
	_ = try(pgx.ForEachRow(rows, into, func() error {
		var err error
		if id != of {
			err = verify()
			of, events = id, nil
		}
		next := e
		next.Payload, next.PrevHash, next.Hash = slices.Clone(e.Payload), slices.Clone(e.PrevHash), slices.Clone(e.Hash)
		events = append(events, next)
		return err
	}))
	must(verify())
	if n := int(g.accepted.Load()); verified != n {
		must(fmt.Errorf("%d orders were accepted, and %d have events", n, verified))
	}
}
