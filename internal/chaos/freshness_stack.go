package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/internal/devstack"
)

// The replicas of the part's own stack. Reads go to the lagging one alone.
const (
	standby = "standby" // has every commit at once, and becomes the primary
	lagging = "lagging"
)

// mostLag is how far the lagging replica is behind at most, as long as the machine keeps up.
const mostLag = 2 * time.Second

// ownStack is a stack of this part alone, because it breaks its servers.
type ownStack struct {
	*devstack.Stack
	dir       string
	primary   string // URL of the present primary, as superuser
	lag       *lagMeter
	redis     *redis.Client
	forgotten chan struct{} // closed when nobody reads the ends of servers any more
}

// standbyAndLagging are the replicas of a part that promotes one.
var standbyAndLagging = []devstack.Replica{{Name: standby}, {Name: lagging, ApplyDelay: mostLag}}

// startStack starts a stack, of which the lag of the second replica is measured, if it has one. prepare may change the commands of its servers; it
// may be nil.
func startStack(ctx context.Context, prepare func(name string, cmd *exec.Cmd), replicas ...devstack.Replica) (_ *ownStack, err error) {
	s := &ownStack{forgotten: make(chan struct{})}
	if s.dir, err = devstack.Scratch(ctx); err != nil {
		return nil, err
	}
	s.Stack, err = devstack.Start(ctx, devstack.Config{Dir: s.dir, Replicas: replicas, Prepare: prepare})
	if err != nil {
		return nil, errors.Join(err, devstack.Remove(context.WithoutCancel(ctx), s.dir))
	}
	go func() { // servers are killed here on purpose
		for {
			select {
			case <-s.Exits():
			case <-s.forgotten:
				return
			}
		}
	}()
	s.primary = s.PrimaryURL
	options, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		return nil, errors.Join(err, s.remove(ctx))
	}
	s.redis = redis.NewClient(options)
	if len(replicas) > 1 {
		s.lag = measureLag(context.WithoutCancel(ctx), s.ReplicaURLs[1], s.PrimaryURL)
	}
	return s, nil
}

func (s *ownStack) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if s.lag != nil {
		s.lag.stop()
	}
	if s.redis != nil {
		_ = s.redis.Close()
	}
	err := s.Stop(ctx)
	close(s.forgotten)
	return errors.Join(err, devstack.Remove(ctx, s.dir))
}

// signal sends a signal to one server.
func (s *ownStack) signal(name string, sig syscall.Signal) error {
	b, err := os.ReadFile(filepath.Join(s.dir, name+".pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, sig)
}

// execute runs statements on a server, as superuser.
func execute(ctx context.Context, server string, statements ...string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// setLag changes how late the lagging replica shows a commit.
func (s *ownStack) setLag(ctx context.Context, d time.Duration) error {
	return execute(ctx, s.ReplicaURLs[1], fmt.Sprintf("ALTER SYSTEM SET recovery_min_apply_delay = '%dms'", d.Milliseconds()), "SELECT pg_reload_conf()")
}

// pauseReplay stops the lagging replica's replay for d.
func (s *ownStack) pauseReplay(ctx context.Context, d time.Duration) error {
	err := execute(ctx, s.ReplicaURLs[1], "SELECT pg_wal_replay_pause()")
	<-time.After(d)
	return errors.Join(err, execute(context.WithoutCancel(ctx), s.ReplicaURLs[1], "SELECT pg_wal_replay_resume()"))
}

// restartRedis kills Redis and starts it again, empty.
func (s *ownStack) restartRedis(ctx context.Context) error {
	if err := s.signal("redis", syscall.SIGKILL); err != nil {
		return err
	}
	return s.Restart(ctx, "redis")
}

// cutChannel ends every connection that listens to invalidations, again and again for d.
func (s *ownStack) cutChannel(ctx context.Context, d time.Duration) (cut int64) {
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; <-time.After(30 * time.Millisecond) {
		n, _ := s.redis.ClientKillByFilter(ctx, "TYPE", "pubsub").Result() // Redis may be away
		cut += n
	}
	return cut
}

// setStandbys names the synchronous standby, or none, and returns once that is so.
func (s *ownStack) setStandbys(ctx context.Context, name string) error {
	state := map[bool]string{true: "sync", false: "async"}[name != ""]
	return errors.Join(execute(ctx, s.primary, "ALTER SYSTEM SET synchronous_standby_names = '"+name+"'", "SELECT pg_reload_conf()"),
		s.awaitValue(ctx, s.primary, "SELECT sync_state FROM pg_stat_replication WHERE application_name = '"+standby+"'", state))
}

// promote stops the primary, makes the synchronous standby the new one, and has the lagging replica follow it.
func (s *ownStack) promote(ctx context.Context) (stopped time.Time, err error) {
	old, next := s.primary, s.ReplicaURLs[0]
	if err = s.setStandbys(ctx, standby); err != nil {
		return stopped, err
	}
	<-time.After(2 * time.Second) // of writes that wait for the standby
	stopped = time.Now()
	if err = s.signal("primary", syscall.SIGINT); err != nil {
		return stopped, err
	}
	for end := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, old)
		if err != nil && ctx.Err() == nil && regexp.MustCompile("refused").MatchString(err.Error()) {
			break
		}
		if err == nil {
			_ = conn.Close(ctx)
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return stopped, fmt.Errorf("the old primary does not stop: %w", ctx.Err())
		}
	}
	if err = execute(ctx, next, "SELECT pg_promote(true, 30)"); err != nil {
		return stopped, err
	}
	s.primary = next
	s.lag.follow(next)
	u, err := url.Parse(next)
	if err != nil {
		return stopped, err
	}
	password, _ := u.User.Password()
	return stopped, execute(ctx, s.ReplicaURLs[1], "ALTER SYSTEM SET primary_slot_name = ''",
		fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=%s user=ordergate password=%s application_name=%s'", u.Port(), password, lagging),
		"SELECT pg_reload_conf()")
}

func (s *ownStack) awaitValue(ctx context.Context, server, statement, want string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for end := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		var got string
		if err = conn.QueryRow(ctx, statement).Scan(&got); err == nil && got == want {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%s: %s instead of %s: %w", statement, got, want, err)
		}
	}
}

// gateway is a database on the stack with two processes of the API, a worker and a payment simulator.
type gateway struct {
	stack     *ownStack
	database  string
	processes [2]*installation // each with a process of the API; the second has the worker and the simulator, too
}

// deploy makes a gateway of a program, with further settings. The caller must call remove.
func (s *ownStack) deploy(ctx context.Context, c *campaign, program string, env ...string) (_ *gateway, err error) {
	g := &gateway{stack: s, database: "fresh_" + strings.ToLower(rand.Text()[:12])}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.remove())
		}
	}()
	if err = execute(ctx, s.primary, "CREATE DATABASE "+g.database); err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(6)
	if err != nil {
		return nil, err
	}
	first, err := url.Parse(s.PrimaryURL)
	if err != nil {
		return nil, err
	}
	second, err := url.Parse(s.ReplicaURLs[0])
	if err != nil {
		return nil, err
	}
	replica, err := url.Parse(s.ReplicaURLs[1])
	if err != nil {
		return nil, err
	}
	first.Path, replica.Path = "/"+g.database, "/"+g.database
	migrate := first.String()
	first.Host += "," + second.Host
	query := first.Query() // primary, not read-write: the connections of reads refuse to write
	query.Set("target_session_attrs", "primary")
	query.Set("connect_timeout", "2")
	first.RawQuery = query.Encode()
	client := &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	for n := range g.processes {
		i := &installation{c: c, database: g.database, primary: migrate, processes: map[string]*process{}, client: client, api: addresses[n], psp: addresses[2]}
		g.processes[n] = i
		if i.program, err = filepath.Abs(program); err != nil {
			return nil, err
		}
		if _, err = os.Stat(i.program); err != nil {
			return nil, fmt.Errorf("%w: run `make chaos`", err)
		}
		if i.dir, err = os.MkdirTemp("", "ordergate-chaos-"); err != nil {
			return nil, err
		}
		i.admin = map[string]string{"serve": addresses[3+n], "worker": addresses[5]}
		i.env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "ORDERGATE_") }),
			"ORDERGATE_PRIMARY_URL="+first.String(), "ORDERGATE_REPLICA_URLS="+replica.String(), "ORDERGATE_REDIS_URL="+s.RedisURL,
			"ORDERGATE_REDIS_PREFIX="+g.database+":", "ORDERGATE_SECRET="+strings.Repeat("7", 64), "ORDERGATE_ADDR="+i.api, "ORDERGATE_PSP_URL=http://"+i.psp,
			"ORDERGATE_PSP_ADDR="+i.psp, "ORDERGATE_PSP_DIR="+filepath.Join(i.dir, "psp"), "ORDERGATE_DRAIN_DELAY=0s", "ORDERGATE_PRIMARY_CONNECTIONS=16",
			"ORDERGATE_RESERVATION_TTL=2h") // no order changes by itself meanwhile
		i.env = append(i.env, env...)
	}
	owner := &installation{program: g.processes[1].program, env: append(slices.Clip(g.processes[1].env), "ORDERGATE_PRIMARY_URL="+migrate)}
	if _, err = owner.output(ctx, "migrate", "-sample", account); err != nil {
		return nil, err
	}
	out, err := owner.output(ctx, "keys", "create", "-rate", "0", "-account", account)
	if err != nil {
		return nil, err
	}
	for n, i := range g.processes {
		i.key = regexp.MustCompile(`og_test_\S+`).FindString(out)
		if err = i.start([]string{"serve"}); err != nil {
			return nil, err
		}
		if n == 1 {
			if err = errors.Join(i.start([]string{"psp"}), i.start([]string{"worker"})); err != nil {
				return nil, err
			}
		}
	}
	for n, i := range g.processes {
		for _, name := range [][]string{{"serve"}, {"serve", "worker"}}[n] {
			if err = i.awaitReady(ctx, name); err != nil {
				return nil, err
			}
			select {
			case <-i.process(name).ended:
				return nil, fmt.Errorf("%s ended: %s", name, i.lastLog(name))
			default:
			}
		}
	}
	return g, nil
}

// remove ends the processes. The database goes with the stack.
func (g *gateway) remove() (err error) {
	for _, i := range g.processes {
		if i == nil {
			continue
		}
		for name := range i.processes {
			i.kill(name)
		}
		if i.dir != "" && !i.broken {
			err = errors.Join(err, os.RemoveAll(i.dir))
		}
	}
	return err
}

// report adds a row about a gateway, of which the logs are kept if the row tells of something broken. A process that has ended is.
func (g *gateway) report(r row) {
	for _, i := range g.processes {
		for name, p := range i.processes {
			select {
			case <-p.ended:
				r.broken = append(r.broken, fmt.Sprintf("%s ended: %s", name, i.lastLog(name)))
			default:
			}
		}
	}
	if len(r.broken) > 0 {
		for _, i := range g.processes {
			i.broken = true
			r.broken = append(r.broken, "logs are kept in "+i.dir)
		}
	}
	g.processes[0].c.report(r)
}

// pause stops a process of the API for d, with whatever it is doing.
func (g *gateway) pause(n int, d time.Duration) {
	p := g.processes[n].process("serve").cmd.Process
	_ = p.Signal(syscall.SIGSTOP)
	<-time.After(d)
	_ = p.Signal(syscall.SIGCONT)
}

// lagMeter measures how far a replica is behind the primary, from outside and never too little.
type lagMeter struct {
	stop    context.CancelFunc
	mu      sync.Mutex
	primary string
	durable []position // of the primary, asked for at that time or later
	behind  []lagAt
}

type position struct {
	at  time.Time
	lsn int64
}

// lagAt: at that time the replica showed all that was durable so long before.
type lagAt struct {
	at  time.Time
	lag time.Duration
}

// measureEvery is the pause between two measurements.
const measureEvery = 25 * time.Millisecond

// logPosition is the position in the log that a server has: of a primary the durable one, of a standby the replayed one.
const logPosition = `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0')::bigint`

func measureLag(ctx context.Context, replica, primary string) *lagMeter {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	m := &lagMeter{primary: primary, stop: func() { cancel(); <-done }}
	go func() {
		defer close(done)
		var both [2]*pgx.Conn
		ask := func(n int, url string) (lsn int64, err error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if both[n] == nil || both[n].IsClosed() {
				if both[n], err = pgx.Connect(ctx, url); err != nil {
					return 0, err
				}
			}
			err = both[n].QueryRow(ctx, logPosition).Scan(&lsn)
			if err != nil {
				_ = both[n].Close(ctx)
			}
			return lsn, err
		}
		for tick := time.Tick(measureEvery); ctx.Err() == nil; {
			m.mu.Lock()
			primary := m.primary
			m.mu.Unlock()
			begin := time.Now()
			durable, errPrimary := ask(0, primary)
			replayed, errReplica := ask(1, replica)
			m.mu.Lock()
			if errPrimary == nil {
				m.durable = append(m.durable, position{begin, durable})
			}
			if n := len(m.durable); errReplica == nil && n > 0 {
				for n > 0 && m.durable[n-1].lsn > replayed {
					n--
				}
				now := time.Now()
				if n > 0 {
					m.durable = m.durable[n-1:] // a replica does not go back
					m.behind = append(m.behind, lagAt{now, now.Sub(m.durable[0].at)})
				}
			}
			m.mu.Unlock()
			select {
			case <-tick:
			case <-ctx.Done():
			}
		}
		for _, conn := range both {
			if conn != nil {
				_ = conn.Close(context.WithoutCancel(ctx))
			}
		}
	}()
	return m
}

// follow measures against another primary.
func (m *lagMeter) follow(primary string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.primary = primary
}

// most is the greatest lag from a time until now.
func (m *lagMeter) most(from time.Time) (most time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := time.Now()
	for _, b := range slices.Backward(m.behind) { // until the next measurement the lag may grow like the time
		most = max(most, b.lag+next.Sub(b.at))
		next = b.at
		if next.Before(from) {
			break
		}
	}
	return most
}

// none waits until the replica shows all that is durable now.
func (m *lagMeter) none(ctx context.Context) error {
	begin := time.Now()
	for end := begin.Add(time.Minute); ; <-time.After(measureEvery) {
		m.mu.Lock()
		n := len(m.behind)
		shows := n > 0 && m.behind[n-1].at.Add(-m.behind[n-1].lag).After(begin)
		m.mu.Unlock()
		if shows {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the lagging replica does not follow: %w", ctx.Err())
		}
	}
}
