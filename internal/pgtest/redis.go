package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ordergate/ordergate/internal/devstack"
)

// redisPassword is of every Redis that a test starts, of Sentinels too.
const redisPassword = "secret"

// Redis is a redis-server of one test, which the test may kill and start again. It ends with the test, and with the test's process.
type Redis struct {
	Addr string // host:port

	t      testing.TB
	config string // path
	args   []string
	client *redis.Client
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
}

// NewRedis starts a single Redis. It stores nothing on disk but by SAVE.
func NewRedis(t testing.TB) *Redis { t.Helper(); return startRedis(t, "") }

// URL is the address for clients.
func (r *Redis) URL() string { return "redis://:" + redisPassword + "@" + r.Addr }

// startRedis starts a server with the usual configuration and more lines.
func startRedis(t testing.TB, more string, args ...string) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("this test needs redis-server: install Redis")
	}
	r := &Redis{t: t, config: filepath.Join(t.TempDir(), "redis.conf"), args: args}
	t.Cleanup(func() {
		if r.cmd != nil && r.cmd.Process != nil {
			r.Kill()
			_ = r.client.Close()
		}
	})
	for tries := 1; ; tries++ { // what runs beside this may take a free port before the server does
		port, err := devstack.FreePort()
		must(t, "find a port", err)
		bus, err := devstack.FreePort() // of a Cluster; its default lies among the local ports of outgoing connections
		must(t, "find a port", err)
		r.Addr = "127.0.0.1:" + strconv.Itoa(port)
		lines := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nrequirepass %[3]s\n", port, filepath.Dir(r.config), redisPassword)
		if !slices.Contains(args, "--sentinel") {
			lines += fmt.Sprintf("masterauth %s\nsave \"\"\ncluster-port %d\nrepl-diskless-sync-delay 0\n", redisPassword, bus)
		}
		must(t, "configure Redis", os.WriteFile(r.config, []byte(lines+more), 0o600))
		r.client = redis.NewClient(&redis.Options{Addr: r.Addr, Password: redisPassword, ReadTimeout: time.Second, MaxRetries: -1, DialerRetries: 1})
		if ended := r.start(); ended == "" {
			return r
		} else if tries == 3 || !strings.Contains(ended, "Address already in use") {
			t.Fatal("redis-server ended: " + ended)
		}
		_ = r.client.Close()
	}
}

// Start starts the server, on the data that it has on disk, and returns when it answers.
func (r *Redis) Start() {
	r.t.Helper()
	if ended := r.start(); ended != "" {
		r.t.Fatal("redis-server ended: " + ended)
	}
}

// start is Start. It returns the output of a server that ended instead.
func (r *Redis) start() (ended string) {
	r.t.Helper()
	r.cmd, r.done = exec.Command("redis-server", append([]string{r.config}, r.args...)...), make(chan struct{})
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	devstack.DieWithParent(r.cmd.SysProcAttr, syscall.SIGKILL)
	var out strings.Builder
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // see DieWithParent
		defer runtime.UnlockOSThread()
		err := r.cmd.Start()
		started <- err
		if err == nil {
			_ = r.cmd.Wait() // it was killed
			close(r.done)
		}
	}()
	must(r.t, "start redis-server", <-started)
	until(r.t, func() error {
		select {
		case <-r.done:
			ended = cmp.Or(out.String(), "it said nothing")
			return nil
		default:
		}
		c, err := net.Dial("tcp", r.Addr) // the driver would log that nothing listens yet, into the middle of a benchmark's line
		if err != nil {
			return err
		}
		_ = c.Close()
		return r.client.Ping(r.t.Context()).Err()
	})
	return ended
}

// Kill ends the server at once: kill -9.
func (r *Redis) Kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.done
}

// Freeze stops the server as it is, until Thaw: connections to it are made, and nothing is answered.
func (r *Redis) Freeze() {
	r.t.Helper()
	must(r.t, "freeze redis-server", r.cmd.Process.Signal(syscall.SIGSTOP))
}

// Thaw ends Freeze.
func (r *Redis) Thaw() {
	r.t.Helper()
	must(r.t, "thaw redis-server", r.cmd.Process.Signal(syscall.SIGCONT))
}

// Do runs a command on the server, by a connection of its own. The command is split at its spaces, args are not.
func (r *Redis) Do(command string, args ...any) any {
	r.t.Helper()
	result, err := r.try(command, args...)
	must(r.t, command, err)
	return result
}

func (r *Redis) try(command string, args ...any) (any, error) {
	var words []any
	for word := range strings.FieldsSeq(command) {
		words = append(words, word)
	}
	return r.client.Do(context.WithoutCancel(r.t.Context()), append(words, args...)...).Result()
}

// Has tells whether a command's result contains a text. A server that does not answer has nothing.
func (r *Redis) Has(text, command string, args ...any) bool {
	result, err := r.try(command, args...)
	return err == nil && strings.Contains(fmt.Sprint(result), text)
}

// awaits returns when a command's result contains a text.
func (r *Redis) awaits(command, text string) {
	r.t.Helper()
	until(r.t, func() error {
		result, err := r.try(command)
		if err == nil && !strings.Contains(fmt.Sprint(result), text) {
			err = fmt.Errorf("%s: no %q in %v", command, text, result)
		}
		return err
	})
}

// Detach cuts a replica off from its master, once it has all that the master has. It does not get what is written from then on.
func (r *Redis) Detach(master *Redis) {
	r.t.Helper()
	offset := func(server *Redis, name string) int {
		n, err := strconv.Atoi(server.client.InfoMap(r.t.Context(), "replication").Item("Replication", name))
		must(r.t, "read "+name, err)
		return n
	}
	written := offset(master, "master_repl_offset")
	until(r.t, func() error {
		if n := offset(r, "slave_repl_offset"); n < written {
			return fmt.Errorf("the replica has %d of %d", n, written)
		}
		return nil
	})
	r.Do("CONFIG SET masterauth wrong")
	master.Do("CLIENT KILL TYPE replica")
	r.awaits("INFO replication", "master_link_status:down")
}

func until(t testing.TB, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(bound); ; <-time.After(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(errors.Join(errors.New("pgtest: it did not come to pass"), err))
		}
	}
}

// RedisCluster is a Cluster of three masters, each with a replica. A busy machine may change their roles.
type RedisCluster struct {
	URL   string // of OpenRedis
	Nodes []*Redis
}

// NewRedisCluster starts a Cluster. It gives up a node that was silent for a second.
func NewRedisCluster(t testing.TB) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	for range 6 {
		c.Nodes = append(c.Nodes, startRedis(t, "cluster-enabled yes\ncluster-node-timeout 1000\n"))
	}
	all, masters, replicas := c.Nodes, c.Nodes[:3], c.Nodes[3:]
	c.URL = "redis+cluster://:" + redisPassword + "@" + all[0].Addr + "?addr=" + all[1].Addr
	first := all[0].busAddr()
	for i, r := range all {
		r.Do("CLUSTER SET-CONFIG-EPOCH " + strconv.Itoa(i+1))
		if i < 3 {
			r.Do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*5462, min(16383, i*5462+5461)))
		}
		if i > 0 {
			r.Do("CLUSTER MEET " + first)
		}
	}
	for _, r := range all {
		r.awaits("CLUSTER INFO", "cluster_known_nodes:6")
	}
	for i, r := range replicas {
		id := fmt.Sprint(masters[i].Do("CLUSTER MYID"))
		until(t, func() error { _, err := r.try("CLUSTER REPLICATE " + id); return err })
	}
	for _, r := range all {
		r.awaits("CLUSTER INFO", "cluster_state:ok")
	}
	for i, r := range replicas {
		r.awaits("INFO replication", "master_link_status:up")
		masters[i].awaits("INFO replication", "state=online")
	}
	for _, r := range all { // also those that vote must know who replicates whom
		until(t, func() error {
			if nodes, err := r.try("CLUSTER NODES"); err != nil || strings.Count(fmt.Sprint(nodes), "slave ") != 3 {
				return fmt.Errorf("%v %w", nodes, err)
			}
			return nil
		})
	}
	return c
}

// Owner is the master that has a key, and its replica.
func (c *RedisCluster) Owner(key string) (master, replica *Redis) {
	for _, r := range c.Nodes {
		if r.Has("1", "EXISTS", key) { // others send the client on
			master = r
		}
	}
	if master == nil {
		c.Nodes[0].t.Fatalf("no node has %s", key)
	}
	_, port, _ := strings.Cut(master.Addr, ":")
	for _, r := range c.Nodes {
		if r.Has("master_port:"+port, "INFO replication") {
			replica = r
		}
	}
	return master, replica
}

// busAddr is the server's address for CLUSTER MEET.
func (r *Redis) busAddr() string {
	r.t.Helper()
	port := r.client.ConfigGet(r.t.Context(), "cluster-port").Val()["cluster-port"]
	return strings.ReplaceAll(r.Addr, ":", " ") + " " + port
}

// RedisSentinel is a master with a replica, which three Sentinels watch. A busy machine may change their roles.
type RedisSentinel struct {
	URL       string // of OpenRedis
	Sentinels []*Redis

	master, replica *Redis
}

// Roles returns the present master and replica.
func (s *RedisSentinel) Roles() (master, replica *Redis) {
	if s.replica.Has("role:master", "INFO replication") {
		return s.replica, s.master
	}
	return s.master, s.replica
}

// NewRedisSentinel starts the servers. The Sentinels give up a master that was silent for a second.
func NewRedisSentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{master: startRedis(t, "")}
	address := strings.ReplaceAll(s.master.Addr, ":", " ")
	s.replica = startRedis(t, "replicaof "+address+"\n")
	s.replica.awaits("INFO replication", "master_link_status:up")
	s.master.awaits("INFO replication", "state=online")
	for range 3 {
		s.Sentinels = append(s.Sentinels, startRedis(t, fmt.Sprintf("sentinel monitor main %s 2\nsentinel auth-pass main %s\nsentinel sentinel-pass %[2]s\n"+
			"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n", address, redisPassword), "--sentinel"))
	}
	s.URL = fmt.Sprintf("redis+sentinel://:%s@%s?addr=%s&addr=%s&master_name=main&password=%[1]s", redisPassword, s.Sentinels[0].Addr, s.Sentinels[1].Addr, s.Sentinels[2].Addr)
	for _, r := range s.Sentinels {
		r.awaits("SENTINEL CKQUORUM main", "OK 3 usable")
		r.awaits("SENTINEL REPLICAS main", s.replica.Addr)
	}
	return s
}
