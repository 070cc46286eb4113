package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/internal/devstack"
)

// faultsInNumbers is how often the part kills does what.
type faultsInNumbers struct {
	killPrimary, killWorker, killServe, killSimulator, killRedis int

	killEvery time.Duration   // two kills, at most
	stops     []time.Duration // each process is stopped for each of them
	cut       time.Duration   // all connections of the primary, again and again
	locked    time.Duration   // rows, by other sessions
	hold      time.Duration   // a lock, at most
	clockFor  time.Duration   // with each wrong clock
	short     int64           // pieces of the product that there is too little of
	together  bool            // all faults under one load, and not each under its own
}

// replica is the only one of the stacks of kills and disk.
const replica = "replica"

// battle is a stack with an installation, and what makes them fail.
type battle struct {
	*ownStack
	i      *installation
	random *mathrand.Rand // of the faults, which come one after another

	charged int // payments in the provider's ledger that earlier loads explain

	mu      sync.Mutex
	preload []string   // variables of the primary's environment, from its next start on
	volume  *walVolume // of the primary's log; nil: the data folder's
}

// startBattle starts a stack and an installation that reads from its replica.
func (c *campaign) startBattle(ctx context.Context) (b *battle, err error) {
	b = &battle{random: mathrand.New(mathrand.NewPCG(13, uint64(time.Now().UnixNano())))}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.remove(ctx))
		}
	}()
	if b.ownStack, err = startStack(ctx, b.prepare, devstack.Replica{Name: replica}); err != nil {
		return nil, err
	}
	own := &campaign{size: c.size, bin: c.bin, primaryURL: b.PrimaryURL, redisURL: b.RedisURL, progress: c.progress, name: c.name}
	if b.i, err = own.install(ctx, ordinary, 8*time.Second); err != nil {
		return nil, err
	}
	b.i.c = c
	if err = b.i.findReplica(ctx, b.ReplicaURLs[0]); err != nil {
		return nil, err
	}
	b.i.env = append(b.i.env, "ORDERGATE_REPLICA_URLS="+b.i.replica, "ORDERGATE_LOG_LEVEL=warn")
	return b, errors.Join(b.restart(ctx, "serve"), b.restart(ctx, "worker"))
}

// remove ends all. The database goes with the stack.
func (b *battle) remove(ctx context.Context) (err error) {
	if b.i != nil {
		for name := range b.i.processes {
			b.i.kill(name)
		}
		if b.i.dir != "" && !b.i.broken {
			err = os.RemoveAll(b.i.dir)
		}
	}
	if b.ownStack != nil {
		err = errors.Join(err, b.ownStack.remove(ctx))
	}
	if b.volume != nil {
		b.volume.close()
	}
	return err
}

// prepare changes the primary's next start.
func (b *battle) prepare(name string, cmd *exec.Cmd) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name == "primary" {
		cmd.Env = append(cmd.Env, b.preload...)
		if b.volume != nil {
			b.volume.enter(cmd)
		}
	}
}

// restart kills a process of the program and starts it again, with further settings. It returns when the process is ready.
func (b *battle) restart(ctx context.Context, name string, env ...string) error {
	b.i.kill(name)
	b.pause(ctx, 0, 300*time.Millisecond) // until somebody notices
	if err := b.i.start([]string{name}, env...); err != nil {
		return err
	}
	if name == "psp" {
		return await(ctx, b.i.psp)
	}
	if err := b.i.awaitReady(ctx, name); err != nil {
		return err
	}
	select {
	case <-b.i.process(name).ended:
		return fmt.Errorf("%s ended: %s", name, b.i.lastLog(name))
	default:
		return nil
	}
}

// pause takes from least to most.
func (b *battle) pause(ctx context.Context, least, most time.Duration) {
	pause(ctx, least+time.Duration(b.random.Int64N(int64(most-least)+1)))
}

// fault is one kind, and how it is done. The result says how often that was.
type fault struct {
	name string
	do   func(ctx context.Context) (done string, err error)
}

// kills makes everything fail under load, in numbers, and counts what that did to orders, stock and money.
func kills(ctx context.Context, c *campaign) (err error) {
	b, err := c.startBattle(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(ctx)) }()
	kill := func(what string, times int, do func(ctx context.Context, n int) error) fault {
		return fault{"kill -9 of " + what, func(ctx context.Context) (string, error) {
			slowest := time.Duration(0)
			for n := range times {
				b.pause(ctx, 100*time.Millisecond, c.killEvery)
				if err := ctx.Err(); err != nil {
					return "", err
				}
				if err := do(ctx, n); err != nil {
					return "", fmt.Errorf("kill %d: %w", n+1, err)
				}
				took, err := b.awaitCommand(ctx)
				if err != nil {
					return "", fmt.Errorf("kill %d: %w", n+1, err)
				}
				slowest = max(slowest, took)
			}
			return fmt.Sprintf("%d kills, a command was done %.1f s after the start at most", times, slowest.Seconds()), nil
		}}
	}
	process := func(name string) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error { return b.restart(ctx, name) }
	}
	all := []fault{
		kill("the primary", c.killPrimary, b.killPrimary),
		kill("the worker", c.killWorker, process("worker")),
		kill("the API", c.killServe, process("serve")),
		kill("the simulator", c.killSimulator, process("psp")),
		kill("Redis", c.killRedis, func(ctx context.Context, _ int) error { return b.restartRedis(ctx) }),
		{"SIGSTOP of each", b.stopEach},
		{"connections terminated", b.terminate},
		{"rows locked elsewhere", b.lockRows},
		{"PostgreSQL's clock", b.postgresClock},
		{"our clock", b.ourClock},
	}
	loads := all
	if c.together {
		loads = []fault{{"all faults", func(ctx context.Context) (string, error) {
			var done []string
			var missing error
			for _, f := range all {
				how, err := f.do(ctx)
				if errors.Is(err, errNoFaketime) {
					missing = err
				} else if err != nil {
					return "", fmt.Errorf("%s: %w", f.name, err)
				}
				c.progress("%s: %s: %s", c.name, f.name, how)
				done = append(done, f.name+": "+how)
			}
			return strings.Join(done, ", "), missing
		}}}
	}
	for n, f := range loads {
		r, err := b.underLoad(ctx, fmt.Sprintf("%s-%d", c.name, n), f)
		if err != nil {
			return err
		}
		b.i.report(r)
	}
	return ctx.Err()
}

// awaitCommand waits until a command of the load is done: the next fault meets load again.
func (b *battle) awaitCommand(ctx context.Context) (time.Duration, error) {
	begin, was := time.Now(), b.i.done.Load()
	for ; b.i.done.Load() == was; pause(ctx, 5*time.Millisecond) {
		if time.Since(begin) > notStuck || ctx.Err() != nil {
			return 0, fmt.Errorf("no command was done in %v: %w", time.Since(begin), ctx.Err())
		}
	}
	return time.Since(begin), nil
}

// backendsOf are the processes of a server besides its postmaster and the one that is asked. The connection must be closed.
func backendsOf(ctx context.Context, conn *pgx.Conn) (pids []int32, err error) {
	rows, _ := conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
	return pgx.CollectRows(rows, pgx.RowTo[int32])
}

// killPrimary kills in turn all processes of the primary, its postmaster alone, and one that serves a client, after which the server begins
// anew by itself.
func (b *battle) killPrimary(ctx context.Context, n int) error {
	conn, err := pgx.Connect(ctx, b.i.primary)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if n%3 == 2 {
		var pid int32
		if err = conn.QueryRow(ctx, `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
			ORDER BY state = 'idle', random() LIMIT 1`).Scan(&pid); err != nil {
			return err
		}
		if err = syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
			return err
		}
		for begin := time.Now(); conn.Ping(ctx) == nil; pause(ctx, 5*time.Millisecond) { // it ends with the others
			if ctx.Err() != nil || time.Since(begin) > 10*time.Second {
				return fmt.Errorf("the primary did not notice that a process of its was killed: %w", ctx.Err())
			}
		}
		return b.awaitPrimary(ctx)
	}
	pids, err := backendsOf(ctx, conn)
	if err != nil {
		return err
	}
	if err = b.signal("primary", syscall.SIGKILL); err != nil {
		return err
	}
	if n%3 == 0 {
		for _, pid := range pids {
			_ = syscall.Kill(int(pid), syscall.SIGKILL) // it may have ended
		}
	}
	_ = conn.Close(ctx)
	b.pause(ctx, 0, 300*time.Millisecond)
	return b.Restart(ctx, "primary")
}

// awaitPrimary waits until the primary answers and can write.
func (b *battle) awaitPrimary(ctx context.Context) error {
	for end := time.Now().Add(30 * time.Second); ; pause(ctx, 20*time.Millisecond) {
		err := execute(ctx, b.i.primary, "SELECT pg_logical_emit_message(true, 'chaos', '')")
		if err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the primary does not answer: %w", err)
		}
	}
}

// stopEach stops each process for each time, and lets it go on.
func (b *battle) stopEach(ctx context.Context) (string, error) {
	n := 0
	for _, d := range b.i.c.stops {
		for _, name := range []string{"primary", replica, "redis", "serve", "worker", "psp"} {
			b.pause(ctx, 100*time.Millisecond, b.i.c.killEvery)
			resume, err := b.stop(ctx, name)
			if err != nil {
				return "", fmt.Errorf("stop %s: %w", name, err)
			}
			pause(ctx, d)
			resume()
			if _, err = b.awaitCommand(ctx); err != nil {
				return "", fmt.Errorf("after %s was stopped: %w", name, err)
			}
			n++
		}
	}
	return fmt.Sprintf("%d stops", n), ctx.Err()
}

// stop stops all processes of one name.
func (b *battle) stop(ctx context.Context, name string) (resume func(), err error) {
	if p := b.i.process(name); p != nil {
		return func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }, p.cmd.Process.Signal(syscall.SIGSTOP)
	}
	var pids []int32
	if server := map[string]string{"primary": b.i.primary, replica: b.i.replica}[name]; server != "" {
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if err = b.signal(name, syscall.SIGSTOP); err != nil { // first: it makes no others then
			return nil, err
		}
		if pids, err = backendsOf(ctx, conn); err != nil {
			return nil, errors.Join(err, b.signal(name, syscall.SIGCONT))
		}
	}
	for _, pid := range pids {
		_ = syscall.Kill(int(pid), syscall.SIGSTOP) // it may have ended
	}
	return func() {
		for _, pid := range pids {
			_ = syscall.Kill(int(pid), syscall.SIGCONT)
		}
		_ = b.signal(name, syscall.SIGCONT)
	}, b.signal(name, syscall.SIGSTOP)
}

// terminate ends all connections of the primary every 0.5 s.
func (b *battle) terminate(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, b.i.primary)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	cut, times := 0, 0
	for end := time.Now().Add(b.i.c.cut); time.Now().Before(end) && ctx.Err() == nil; pause(ctx, 500*time.Millisecond) {
		var n int
		if err = conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()`).Scan(&n); err != nil {
			return "", err
		}
		cut, times = cut+n, times+1
	}
	return fmt.Sprintf("%d connections in %d turns", cut, times), ctx.Err()
}

// lockedRows are what other sessions hold, of what the load is about: the newest orders and payments, and the product that is short.
var lockedRows = []string{
	`SELECT 1 FROM orders WHERE customer_ref = $1 ORDER BY id DESC LIMIT 3 FOR UPDATE`,
	`SELECT 1 FROM payments p WHERE EXISTS (SELECT FROM orders o WHERE o.id = p.order_id AND o.customer_ref = $1) ORDER BY order_id DESC LIMIT 3 FOR UPDATE`,
	`SELECT 1 FROM stock WHERE sku = $1 FOR UPDATE`,
}

// lockRows holds rows in sessions like psql's, of each kind one after another.
func (b *battle) lockRows(ctx context.Context) (string, error) {
	var sessions sync.WaitGroup
	failed, locks := make([]error, len(lockedRows)), make([]int, len(lockedRows))
	end := time.Now().Add(b.i.c.locked)
	for n, statement := range lockedRows {
		random := mathrand.New(mathrand.NewPCG(17, uint64(n)))
		sessions.Go(func() {
			conn, err := pgx.Connect(ctx, b.i.primary)
			if err != nil {
				failed[n] = err
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			for time.Now().Before(end) && ctx.Err() == nil {
				failed[n] = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
					tag, err := tx.Exec(ctx, statement, b.i.loaded)
					if err == nil && tag.RowsAffected() > 0 {
						locks[n]++
						pause(ctx, b.i.c.hold/4+time.Duration(random.Int64N(int64(b.i.c.hold*3/4))))
					}
					return err
				})
				if failed[n] != nil {
					return
				}
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	sessions.Wait()
	done := fmt.Sprintf("%d locks of orders, %d of payments, %d of stock", locks[0], locks[1], locks[2])
	if err := cmp.Or(errors.Join(failed...), ctx.Err()); err != nil {
		return "", err
	}
	if slices.Contains(locks, 0) {
		return "", fmt.Errorf("%s: this proves nothing", done)
	}
	return done, nil
}

// errNoFaketime fails the case of PostgreSQL's clock alone.
var errNoFaketime = errors.New("PostgreSQL's clock is set by libfaketime, which is not installed: apt-get install libfaketime")

// faketime is the library that shifts the clock of a program which it is loaded into.
func faketime() (string, error) {
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errNoFaketime
}

// postgresClock has PostgreSQL's clock jump an hour back and on again, and an hour ahead and back again, each time while the provider is away.
func (b *battle) postgresClock(ctx context.Context) (string, error) {
	library, err := faketime()
	if err != nil {
		return "", err
	}
	file := filepath.Join(b.dir, "clock")
	set := func(offset string) error {
		next := file + ".next" // at no time there is half a file
		return errors.Join(os.WriteFile(next, []byte(offset+"\n"), 0o644), os.Chmod(next, 0o644), os.Rename(next, file))
	}
	restart := func(preload ...string) error {
		b.mu.Lock()
		b.preload = preload
		b.mu.Unlock()
		if err := b.signal("primary", syscall.SIGINT); err != nil {
			return err
		}
		return b.Restart(ctx, "primary")
	}
	if err = errors.Join(set("+0"), restart("LD_PRELOAD="+library, "FAKETIME_TIMESTAMP_FILE="+file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1")); err != nil {
		return "", err
	}
	for _, offset := range []int64{-3600, 0, 3600, 0} {
		b.i.kill("psp")
		pause(ctx, b.i.c.clockFor/8) // calls of the provider wait for their next try when the clock jumps
		if err = errors.Join(set(fmt.Sprintf("%+d", offset)), b.restart(ctx, "psp")); err != nil {
			return "", err
		}
		pause(ctx, b.i.c.clockFor)
		ahead, err := b.i.inDatabase(ctx, "SELECT round(extract(epoch FROM clock_timestamp()) - $1)::bigint", time.Now().Unix())
		if err != nil {
			return "", err
		}
		if ahead < offset-5 || ahead > offset+5 {
			return "", fmt.Errorf("PostgreSQL's clock is %d s ahead, and not %d: this proves nothing", ahead, offset)
		}
	}
	return "-1 h, right, +1 h, right", errors.Join(restart(), ctx.Err())
}

// ourClock has the clocks of the API and the worker wrong by an hour, each in another direction, and then the other way round.
func (b *battle) ourClock(ctx context.Context) (string, error) {
	right := b.i.program
	b.i.program = filepath.Join(filepath.Dir(right), killable)
	if _, err := os.Stat(b.i.program); err != nil {
		return "", fmt.Errorf("%w: run `make chaos`", err)
	}
	for _, offsets := range [][2]string{{"1h", "-1h"}, {"-1h", "1h"}} {
		if err := errors.Join(b.restart(ctx, "serve", "ORDERGATE_FAILPOINTS=clock="+offsets[0]), b.restart(ctx, "worker", "ORDERGATE_FAILPOINTS=clock="+offsets[1])); err != nil {
			return "", err
		}
		pause(ctx, b.i.c.clockFor)
	}
	b.i.program = right
	return "the API's +1 h and the worker's -1 h, then the other way round", errors.Join(b.restart(ctx, "serve"), b.restart(ctx, "worker"), ctx.Err())
}
