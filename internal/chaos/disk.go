package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	beginsWithin    = time.Second      // from the beginning of an outage until each command is refused as it should be
	recoversWithin  = 10 * time.Second // from its end until commands are done again
	volumeMegabytes = 256              // of the log's volume; PostgreSQL's segments have 16

	tooManyConnections = "53300" // too_many_connections
)

// outage is a way in which the primary cannot write.
type outage struct {
	name  string
	begin func(ctx context.Context) error
	hold  func(ctx context.Context) error // meanwhile; nil: nothing
	end   func(ctx context.Context) error
	part  bool // of another one, which a small run has alone
}

// disk has the primary unable to write in five ways, under load: commands are refused with SYS_002, reads go on, nothing is lost, and all
// recovers without a restart of the program.
func disk(ctx context.Context, c *campaign) (err error) {
	b, err := c.startBattle(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(ctx)) }()
	set := func(statements ...string) error {
		return execute(ctx, b.i.primary, append(statements, "SELECT pg_reload_conf()")...)
	}
	if err = errors.Join(set("ALTER SYSTEM SET max_connections = 100"), b.stopPrimary(ctx), b.startPrimary(ctx)); err != nil {
		return err
	}
	standbySignal := filepath.Join(b.dir, "primary", "standby.signal")
	var crowd []*pgx.Conn
	for n, o := range []outage{
		{name: "refused connections", begin: b.stopPrimary, end: b.startPrimary, part: true}, // of "a standby"
		{
			name:  "read-only",
			part:  true, // likewise
			begin: func(context.Context) error { return set("ALTER SYSTEM SET default_transaction_read_only = on") },
			end: func(context.Context) error {
				return set("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only")
			},
		},
		{
			name: "a standby",
			begin: func(ctx context.Context) error {
				return errors.Join(b.stopPrimary(ctx), os.WriteFile(standbySignal, nil, 0o644), b.startPrimary(ctx))
			},
			end: func(ctx context.Context) error {
				return errors.Join(os.Remove(standbySignal), b.stopPrimary(ctx), b.startPrimary(ctx))
			},
		},
		{
			name: "no connection left",
			begin: func(ctx context.Context) (err error) {
				crowd, err = b.takeConnections(ctx)
				return err
			},
			end: func(ctx context.Context) error {
				for _, conn := range crowd {
					_ = conn.Close(ctx)
				}
				return nil
			},
		},
		{name: "the log's volume full", begin: b.fillVolume, hold: b.writeLog, end: b.freeVolume},
	} {
		if o.part && c.together {
			continue
		}
		r, err := b.outage(ctx, fmt.Sprintf("%s-%d", c.name, n), o)
		if err != nil {
			return err
		}
		b.i.report(r)
	}
	return ctx.Err()
}

// outage lets an outage last, with a load, and judges what clients are told meanwhile and after it.
func (b *battle) outage(ctx context.Context, customer string, o outage) (row, error) {
	i, processes := b.i, map[string]*process{}
	for _, name := range []string{"serve", "worker"} {
		processes[name] = i.process(name)
	}
	if strings.HasPrefix(o.name, "the log's volume") {
		if err := b.mountVolume(ctx); err != nil {
			return row{}, err
		}
	}
	known := i.insist(ctx, "POST", "/v1/orders", customer+"-known", placing(customer+"-known", 0, ""), false)
	if err := i.awaitReplica(ctx, "SELECT count(*) FROM orders WHERE customer_ref = $1", 1, customer+"-known"); err != nil {
		return row{}, err
	}
	var p probes
	var recovered time.Duration
	r, err := b.underLoad(ctx, customer, fault{o.name, func(ctx context.Context) (string, error) {
		if err := o.begin(ctx); err != nil {
			return "", err
		}
		holding, stop := context.WithTimeout(ctx, beginsWithin+i.c.outage)
		defer stop()
		var held sync.WaitGroup
		var errHeld error
		if o.hold != nil {
			held.Go(func() { errHeld = o.hold(holding) })
		}
		pause(holding, beginsWithin)
		p.ask(holding, i, customer, known.id())
		held.Wait()
		if err := errors.Join(errHeld, o.end(ctx)); err != nil {
			return "", err
		}
		begin := time.Now()
		for n := 0; ; n++ {
			answer := i.send(ctx, "POST", "/v1/orders", fmt.Sprintf("%s-after-%d", customer, n), placing(customer+"-after", n, ""), false)
			if recovered = time.Since(begin); answer.status == http.StatusAccepted || answer.status == http.StatusCreated {
				break
			}
			if recovered > time.Minute || ctx.Err() != nil {
				return "", fmt.Errorf("%v after the end of the outage a command is answered %v: %w", recovered, answer, ctx.Err())
			}
			pause(ctx, 50*time.Millisecond)
		}
		return fmt.Sprintf("%v; a command was done %.1f s after it", &p, recovered.Seconds()), nil
	}})
	if err != nil {
		return r, err
	}
	r.broken = append(r.broken, p.broken...)
	done, err := i.orders(ctx, customer+"-probe")
	if err != nil {
		return r, err
	}
	if len(done) > 0 {
		r.broken = append(r.broken, fmt.Sprintf("%d orders were refused because nothing was changed, and are there", len(done)))
	}
	if recovered > recoversWithin {
		r.broken = append(r.broken, fmt.Sprintf("a command was done %v after the end", recovered))
	}
	for name, was := range processes {
		if i.process(name) != was {
			r.broken = append(r.broken, name+" was started again")
		}
	}
	return r, nil
}

// probes are what clients are told during an outage.
type probes struct {
	commands      map[string]int // answers by status and code
	reads         int
	broken        []string
	slowest, read time.Duration // answers of a command and of a read
}

func (p *probes) String() string {
	told := make([]string, 0, len(p.commands))
	for _, code := range slices.Sorted(maps.Keys(p.commands)) {
		told = append(told, fmt.Sprintf("%d x %s", p.commands[code], code))
	}
	return fmt.Sprintf("commands were answered %s, in %.2f s at most, %d reads in %.2f s", strings.Join(told, ", "), p.slowest.Seconds(), p.reads, p.read.Seconds())
}

// ask sends commands and reads until ctx ends.
func (p *probes) ask(ctx context.Context, i *installation, customer, known string) {
	p.commands = map[string]int{}
	asking := context.WithoutCancel(ctx)
	for n := 0; ctx.Err() == nil; n++ {
		for path, body := range map[string]string{
			"/v1/orders":                                 placing(customer+"-probe", n, "pm_ok"),
			"/v1/orders/" + known + "/cancel":            "",
			"/v1/inventory/" + customer + "/adjustments": `{"delta":1,"reason":"chaos"}`,
		} {
			begin := time.Now()
			answer := i.send(asking, "POST", path, fmt.Sprintf("%s-probe-%s-%d", customer, filepath.Base(path), n), body, false)
			p.slowest = max(p.slowest, time.Since(begin))
			why := answer.problem()
			p.commands[fmt.Sprintf("%d %s", answer.status, why.Code)]++
			if answer.status != http.StatusServiceUnavailable || why.Code != "SYS_002" || !why.Retryable || answer.header.Get("Retry-After") == "" {
				p.broken = append(p.broken, fmt.Sprintf("POST %s was answered %v, Retry-After %q", path, answer, answer.header.Get("Retry-After")))
			}
		}
		for _, path := range []string{"/v1/orders/" + known, "/v1/orders?customer_ref=" + customer + "-known", "/v1/products?limit=5"} {
			begin := time.Now()
			if answer := i.send(asking, "GET", path, "", "", false); answer.status != http.StatusOK || !strings.Contains(path, "products") && !strings.Contains(string(answer.body), known) {
				p.broken = append(p.broken, fmt.Sprintf("GET %s was answered %v", path, answer))
			}
			p.read = max(p.read, time.Since(begin))
			p.reads++
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// stopPrimary stops the primary as an operator does, and returns when it is gone.
func (b *battle) stopPrimary(ctx context.Context) error {
	if err := b.signal("primary", syscall.SIGINT); err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); b.signal("primary", 0) == nil; pause(ctx, 10*time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the primary does not stop: %w", ctx.Err())
		}
	}
	return nil
}

func (b *battle) startPrimary(ctx context.Context) error { return b.Restart(ctx, "primary") }

// takeConnections takes all connections of the primary, also those that the program had.
func (b *battle) takeConnections(ctx context.Context) (taken []*pgx.Conn, err error) {
	first, err := pgx.Connect(ctx, b.i.primary)
	if err != nil {
		return nil, err
	}
	taken = append(taken, first)
	// A place is free for a moment after its connection has left the list, and others take it then.
	end := time.Now().Add(30 * time.Second)
	for alone := 0; alone < 3; pause(ctx, 20*time.Millisecond) {
		conn, err := pgx.Connect(ctx, b.i.primary)
		for ; err == nil; conn, err = pgx.Connect(ctx, b.i.primary) {
			taken, alone = append(taken, conn), -1
		}
		alone++
		if refusal, is := errors.AsType[*pgconn.PgError](err); !is || refusal.Code != tooManyConnections {
			return taken, err
		}
		var others int
		if err = first.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'client backend' AND NOT pid = ANY ($1)`,
			pidsOf(taken)).Scan(&others); err != nil {
			return taken, err
		}
		if others > 0 {
			alone = 0
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return taken, fmt.Errorf("%d connections are left to the program: %w", others, ctx.Err())
		}
	}
	return taken, nil
}

func pidsOf(conns []*pgx.Conn) (all []int32) {
	for _, conn := range conns {
		all = append(all, int32(conn.PgConn().PID()))
	}
	return all
}

// walVolume is a small file system for the primary's log, which only processes see that enter it. It ends with this process.
type walVolume struct {
	shell *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	path  string
	as    string // user that PostgreSQL runs as; empty: ours
}

// mountVolume moves the primary's log to a volume of its own. An ordinary user can do that, in a namespace of users and mounts.
func (b *battle) mountVolume(ctx context.Context) (err error) {
	if err = b.stopPrimary(ctx); err != nil {
		return err
	}
	v := &walVolume{path: filepath.Join(b.dir, "primary", "pg_wal")}
	flags := "-Urm"
	if os.Getuid() == 0 {
		flags = "-m"
		var owner syscall.Stat_t
		if err = syscall.Stat(v.path, &owner); err != nil {
			return err
		}
		v.as = strconv.Itoa(int(owner.Uid))
	}
	v.shell = exec.Command("unshare", flags, "sh")
	out, err := v.shell.StdoutPipe()
	if err != nil {
		return err
	}
	v.out = bufio.NewReader(out)
	v.shell.Stderr = v.shell.Stdout
	if v.in, err = v.shell.StdinPipe(); err != nil {
		return err
	}
	if err = v.shell.Start(); err != nil {
		return fmt.Errorf("a volume needs Linux and unshare of util-linux: %w", err)
	}
	if err = v.do("cd " + b.dir + " && mkdir -p wal && mount -t tmpfs -o mode=700,size=" + strconv.Itoa(volumeMegabytes) + "m ordergate wal && chown --reference=primary/pg_wal wal && " +
		"cp -a primary/pg_wal/. wal && mount --bind wal primary/pg_wal"); err != nil {
		v.close()
		return fmt.Errorf("mount a volume, which needs namespaces of users (sysctl kernel.unprivileged_userns_clone=1, or root): %w", err)
	}
	b.mu.Lock()
	b.volume = v
	b.mu.Unlock()
	return b.startPrimary(ctx)
}

// do runs a command of the shell that sees the volume.
func (v *walVolume) do(command string) error {
	if _, err := fmt.Fprintf(v.in, "%s 2>&1; echo status $?\n", command); err != nil {
		return err
	}
	var said []string
	for {
		line, err := v.out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the shell of the volume ended: %w: %s", err, strings.Join(said, " "))
		}
		if status, is := strings.CutPrefix(line, "status "); is {
			if strings.TrimSpace(status) != "0" {
				return fmt.Errorf("%s: status %s%s", command, status, strings.Join(said, " "))
			}
			return nil
		}
		said = append(said, line)
	}
}

// enter has a command run where the volume is seen. PostgreSQL refuses root, whose number we have in a namespace of ours: there it has another.
func (v *walVolume) enter(cmd *exec.Cmd) {
	as := []string{"-U", "--preserve-credentials", "unshare", "-U", "--map-user=1000", "--map-group=1000"}
	if v.as != "" {
		cmd.SysProcAttr.Credential = nil
		as = []string{"setpriv", "--reuid", v.as, "--regid", v.as, "--clear-groups"}
	}
	path, err := exec.LookPath("nsenter")
	if err != nil {
		cmd.Err = err
		return
	}
	cmd.Args = slices.Concat([]string{path, "-t", strconv.Itoa(v.shell.Process.Pid), "-m"}, as, []string{cmd.Path}, cmd.Args[1:])
	cmd.Path = path
}

func (v *walVolume) close() {
	_ = v.in.Close() // the shell ends at the end of its input
	_ = v.shell.Wait()
}

// fillVolume takes what is left of the log's volume, and writes the log until PostgreSQL needs more.
func (b *battle) fillVolume(ctx context.Context) error {
	if err := b.volume.do("dd if=/dev/zero of=wal/filler bs=1M 2>/dev/null; test -s wal/filler"); err != nil {
		return err
	}
	for n := 0; ; n++ {
		err := execute(ctx, b.i.primary, "SELECT pg_logical_emit_message(true, 'chaos', '')", "SELECT pg_switch_wal()")
		if err != nil {
			return nil //nolint:nilerr // that is what it was for
		}
		if n > volumeMegabytes/16 || ctx.Err() != nil {
			return fmt.Errorf("PostgreSQL writes on, on a full volume: %w", ctx.Err())
		}
	}
}

// writeLog writes into the log whenever the primary is there, as others would: after its recovery it may have the rest of a segment.
func (b *battle) writeLog(ctx context.Context) error {
	for ctx.Err() == nil {
		_ = execute(ctx, b.i.primary, "SELECT pg_logical_emit_message(true, 'chaos', '')", "SELECT pg_switch_wal()")
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// freeVolume makes space, and starts the primary if it has ended, as an operator does.
func (b *battle) freeVolume(ctx context.Context) error {
	if err := b.volume.do("rm wal/filler"); err != nil {
		return err
	}
	pause(ctx, 100*time.Millisecond)
	if b.signal("primary", 0) == nil {
		return b.awaitPrimary(ctx)
	}
	return b.startPrimary(ctx)
}
