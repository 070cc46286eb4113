package main

import (
	"context"
	_ "embed" // check.sql
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap/zapcore"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/gen/inventorydb"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

const (
	program     = "bin/ordergate"
	mode        = "test"
	skus        = 200       // products of the account
	onHand      = 1_000_000 // of each sku at the start
	connections = 32        // of a gateway to the primary: its default
)

// gateway is `ordergate serve` in a process of its own and, for what is measured without HTTP, the parts of one in this process.
type gateway struct {
	primary, dir, addr, psp string
	env                     []string
	key                     string // API key
	owner                   order.Owner
	db                      *pgx.Conn // superuser
	children                []func()  // end them
	ids                     order.IDs
	commands                *command.Commands
	server                  *edge.Server
	sent, kept              atomic.Int64 // numbers the orders; counts those that were taken in
}

// start migrates the stack's database, gives an account products, stock and a key, and starts serve.
func start(ctx context.Context) *gateway {
	g := &gateway{primary: os.Getenv("ORDERGATE_TEST_PRIMARY"), dir: try(os.MkdirTemp("", "ordergate-bench-")), addr: freeAddr(), psp: freeAddr()}
	if g.primary == "" {
		must(errors.New("no stack: run `make bench`"))
	}
	g.env = append(os.Environ(), "ORDERGATE_PRIMARY_URL="+g.primary, "ORDERGATE_REPLICA_URLS="+os.Getenv("ORDERGATE_TEST_REPLICA"),
		"ORDERGATE_REDIS_URL="+os.Getenv("ORDERGATE_TEST_REDIS"), "ORDERGATE_REDIS_PREFIX=bench:", "ORDERGATE_SECRET="+strings.Repeat("5", 64),
		"ORDERGATE_ADDR="+g.addr, "ORDERGATE_PSP_URL=http://"+g.psp, "ORDERGATE_PSP_ADDR="+g.psp, "ORDERGATE_PSP_DIR="+filepath.Join(g.dir, "psp"))
	var said []byte
	for _, args := range [][]string{{"migrate"}, {"keys", "create", "-account", "bench"}} {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env, cmd.Stderr = g.env, os.Stderr
		said = try(cmd.Output())
	}
	g.key = regexp.MustCompile(`og_test_\S+`).FindString(string(said))
	g.db = try(pgx.Connect(ctx, g.primary))
	g.owner = order.Owner{Account: try(accountsdb.New(g.db).GetAccount(ctx, "bench")).ID, Mode: mode}
	products := cataloguedb.InsertProductsParams{Account: g.owner.Account, Mode: mode}
	stock := inventorydb.InsertStockParams{Account: g.owner.Account, Mode: mode}
	for i := range int64(skus) {
		products.Skus, products.Names = append(products.Skus, sku(i)), append(products.Names, fmt.Sprint("Desk lamp ", i))
		products.Descriptions, products.Prices = append(products.Descriptions, ""), append(products.Prices, []byte(`{"EUR": 1999}`))
		stock.Skus, stock.OnHand = append(stock.Skus, sku(i)), append(stock.OnHand, onHand)
	}
	must(cataloguedb.New(g.db).InsertProducts(ctx, products))
	must(inventorydb.New(g.db).InsertStock(ctx, stock))
	g.build(ctx)
	g.child(ctx, "serve", g.addr)
	return g
}

func sku(n int64) string { return fmt.Sprintf("LAMP-%04d", n%skus) }

// build puts a gateway together in this process as internal/app does, write-through to Redis included. Each line of its log is one
// write to /dev/null.
func (g *gateway) build(ctx context.Context) {
	tel := try(telemetry.New(ctx, "info", zapcore.Lock(try(os.OpenFile(os.DevNull, os.O_WRONLY, 0)))))
	pool := g.connect(ctx, otelpgx.NewTracer())
	options := try(redis.ParseURL(os.Getenv("ORDERGATE_TEST_REDIS")))
	options.ContextTimeoutEnabled = true
	client := redis.NewClient(options)
	must(redisotel.InstrumentTracing(client))
	secret := []byte(strings.Repeat("7", 32))
	signer, timeline := token.NewSigner(secret), func() uint32 { return 1 }
	g.ids = order.NewIDs(secret)
	reader := try(query.New(query.Config{
		Primary: pool, Redis: client, RedisPrefix: "bench-inside:", Signer: signer, CursorKey: secret, IDs: g.ids,
		Timeline: timeline, LRUSize: 50_000, Log: tel.Log, Metrics: tel.Registry,
	}))
	g.commands = command.New(command.Config{
		Pool: pool, IDs: g.ids, Now: time.Now, Concurrency: connections * 8, Wake: func() {}, Tracer: tel.Tracer, Registry: tel.Registry,
		Publish: func(ctx context.Context, states []command.Published) {
			entries := make([]query.Entry, len(states))
			for i, s := range states {
				entries[i] = reader.NewEntry(s.Owner, s.ID, s.Rev, s.KnownAt, s.LSN, s.Body)
			}
			reader.WriteThrough(ctx, entries...)
		},
	})
	key := &edge.Key{ID: "key_bench", Owner: g.owner, Scopes: []string{"orders:read", "orders:write"}}
	g.server = try(edge.New(edge.Config{
		Commands: g.commands, Queries: reader, Auth: edge.NewAuthenticator(nil, map[string]*edge.Key{g.key: key}, time.Now),
		Signer: signer, Timeline: timeline, Log: tel.Log, Tracer: tel.Tracer, Registry: tel.Registry,
	}))
}

// connect sets connections up as the gateway does; pgbench does the same, but for the lock_timeout, which would end its clients.
func (g *gateway) connect(ctx context.Context, tracer pgx.QueryTracer) *pgxpool.Pool {
	c := try(pgxpool.ParseConfig(g.primary))
	c.MaxConns, c.ConnConfig.Tracer = connections, tracer
	maps.Copy(c.ConnConfig.RuntimeParams, pg.Session)
	c.ConnConfig.RuntimeParams["lock_timeout"] = "300ms"
	return try(pgxpool.NewWithConfig(ctx, c))
}

// freeAddr is one that a child can listen on.
func freeAddr() string {
	l := try(net.Listen("tcp", "127.0.0.1:0")) //nolint:noctx // closed at once
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// child starts a subcommand, its log in a file, and returns when it listens on addr. end waits for it; one that does not end in
// 20 s after SIGTERM is killed.
func (g *gateway) child(ctx context.Context, name, addr string) (end func()) {
	logs := try(os.Create(filepath.Join(g.dir, name+".log")))
	defer func() { _ = logs.Close() }() // the child has it, too
	admin := freeAddr()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, name)
	cmd.Env, cmd.Stdout, cmd.Stderr = slices.Concat(g.env, []string{"ORDERGATE_ADMIN_ADDR=" + admin}), logs, logs
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 20*time.Second
	must(cmd.Start())
	end = sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait()
		if !cmd.ProcessState.Exited() {
			say("%s: %v", name, cmd.ProcessState)
		}
	})
	g.children = append(g.children, end)
	if addr == "" {
		addr = admin
	}
	await(addr)
	say("%s is ready, profiles at http://%s/debug/pprof", name, admin)
	return end
}

// await returns when somebody listens.
func await(addr string) {
	for range 500 {
		if conn, err := net.Dial("tcp", addr); err == nil { //nolint:noctx // on this machine
			_ = conn.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	must(fmt.Errorf("nobody listens on %s", addr))
}

func (g *gateway) stop() {
	for _, end := range g.children {
		end()
	}
	_ = os.RemoveAll(g.dir)
}

//go:embed check.sql
var checks string

// check fails if anything is oversold, lost or has a gap.
func (g *gateway) check(ctx context.Context) {
	rows := try(g.db.Query(ctx, checks, g.owner.Account, g.kept.Load(), onHand))
	defer rows.Close()
	for rows.Next() {
		var what string
		var n int64
		must(rows.Scan(&what, &n))
		if n != 0 {
			must(fmt.Errorf("%d %s", n, what))
		}
	}
	must(rows.Err())
}
