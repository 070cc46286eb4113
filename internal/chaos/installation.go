package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The programs.
const (
	ordinary = "ordergate"
	killable = "ordergate-failpoints" // built with the tag failpoints
)

const (
	account     = "chaos"
	verifyLimit = 5 * time.Minute
)

// installation is a database with an API, a worker and a payment simulator, each a process of its own.
type installation struct {
	c        *campaign
	program  string // path
	dir      string // logs and the simulator's ledger
	broken   bool   // dir is kept
	database string
	primary  string            // URL of the database
	replica  string            // URL of it on a replica that the API reads from; empty: it reads from the primary
	api, psp string            // addresses
	apis     []string          // of all processes of the API: requests go to them in turn
	turn     atomic.Uint32     // of apis
	admin    map[string]string // addresses, by the processes' names
	env      []string
	key      string // API key
	client   *http.Client

	done         atomic.Int64 // commands that were
	internal     atomic.Int64 // answers with 500
	lastInternal atomic.Value // a response
	loaded       string       // customer of the present load of the part kills, and sku of what is short

	mu        sync.Mutex
	processes map[string]*process // by name: the subcommand, or what startAs was given
}

// process is a running subcommand.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has ended
}

// install makes a database with the sample catalogue and starts the processes on it. An authorization has paymentTime; psp has the flags
// of the simulator. The caller must call remove.
func (c *campaign) install(ctx context.Context, program string, paymentTime time.Duration, psp ...string) (_ *installation, err error) {
	i := &installation{
		c: c, database: "chaos_" + strings.ToLower(rand.Text()[:12]), processes: map[string]*process{},
		client: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1024}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.remove(ctx))
		}
	}()
	if i.program, err = filepath.Abs(filepath.Join(c.bin, program)); err != nil {
		return nil, err
	}
	if _, err = os.Stat(i.program); err != nil {
		return nil, fmt.Errorf("%w: run `make chaos`", err)
	}
	if i.dir, err = os.MkdirTemp("", "ordergate-chaos-"); err != nil {
		return nil, err
	}
	if err = i.onServer(ctx, "CREATE DATABASE "+i.database); err != nil {
		return nil, err
	}
	u, err := url.Parse(c.primaryURL)
	if err != nil {
		return nil, err
	}
	u.Path = "/" + i.database
	i.primary = u.String()
	addresses, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	i.api, i.psp, i.apis = addresses[0], addresses[1], addresses[:1]
	i.env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "ORDERGATE_") }),
		"ORDERGATE_PRIMARY_URL="+i.primary, "ORDERGATE_REDIS_URL="+c.redisURL, "ORDERGATE_REDIS_PREFIX="+i.database+":",
		"ORDERGATE_SECRET="+strings.Repeat("7", 64), "ORDERGATE_ADDR="+i.api, "ORDERGATE_PSP_URL=http://"+i.psp, "ORDERGATE_PSP_ADDR="+i.psp,
		"ORDERGATE_PSP_DIR="+filepath.Join(i.dir, "psp"), "ORDERGATE_PAYMENT_TIMEOUT="+paymentTime.String(), "ORDERGATE_DRAIN_DELAY=0s",
		"ORDERGATE_PSP_CALLBACK_URL=http://"+i.api+"/v1/provider-callbacks/psp", "ORDERGATE_PROVIDER_SECRET="+strings.Repeat("8", 64),
		"ORDERGATE_PRIMARY_CONNECTIONS=16")
	i.admin = map[string]string{"serve": addresses[2], "worker": addresses[3]}
	if _, err = i.output(ctx, "migrate", "-sample", account); err != nil {
		return nil, err
	}
	out, err := i.output(ctx, "keys", "create", "-rate", "0", "-account", account)
	if err != nil {
		return nil, err
	}
	i.key = regexp.MustCompile(`og_test_\S+`).FindString(out)
	if err = i.start(append([]string{"psp"}, psp...)); err != nil {
		return nil, err
	}
	for _, name := range []string{"worker", "serve"} {
		if err = i.start([]string{name}); err != nil {
			return nil, err
		}
	}
	return i, errors.Join(await(ctx, i.psp), await(ctx, i.api))
}

// remove ends the processes and deletes all that install made.
func (i *installation) remove(ctx context.Context) error {
	for name := range i.processes {
		i.kill(name)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err := i.onServer(ctx, "DROP DATABASE IF EXISTS "+i.database+" WITH (FORCE)")
	if i.dir != "" && !i.broken {
		err = errors.Join(err, os.RemoveAll(i.dir))
	}
	return err
}

func (i *installation) onServer(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, i.c.primaryURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

// inDatabase runs a statement as superuser and returns its first value.
func (i *installation) inDatabase(ctx context.Context, statement string, args ...any) (value int64, err error) {
	return valueOf(ctx, i.primary, statement, args...)
}

// output runs a subcommand to its end.
func (i *installation) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, i.program, args...)
	cmd.Env = i.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ordergate %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// start starts a subcommand with further settings, and does not wait until it is ready.
func (i *installation) start(args []string, env ...string) error {
	return i.startAs(args[0], args, env...)
}

// startAs starts a subcommand under a name of its own, beside others of its kind.
func (i *installation) startAs(name string, args []string, env ...string) error {
	logs, err := os.OpenFile(filepath.Join(i.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close() // the process has it, too
	p := &process{cmd: exec.Command(i.program, args...), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(append(slices.Clip(i.env), "ORDERGATE_ADMIN_ADDR="+cmp.Or(i.admin[name], "127.0.0.1:0")), env...), logs, logs
	if err = p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.processes[name] = p
	return nil
}

// kill is kill -9. It returns when the process is gone.
func (i *installation) kill(name string) {
	p := i.process(name)
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (i *installation) process(name string) *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.processes[name]
}

// killed tells whether the process was ended by SIGKILL.
func (p *process) killed() bool {
	status, is := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return is && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// endsKilled waits for the end of a process that is to be killed, and tells whether it was.
func (p *process) endsKilled() bool {
	select {
	case <-p.ended:
		return p.killed()
	case <-time.After(hitWithin):
		return false
	}
}

// lastLog is the last line that a subcommand wrote.
func (i *installation) lastLog(name string) string {
	b, _ := os.ReadFile(filepath.Join(i.dir, name+".log"))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// verify is `ordergate verify`. The result is what it found; empty: all is well.
func (i *installation) verify(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	if _, err := i.output(ctx, "verify"); err != nil {
		return err.Error()
	}
	return ""
}

// handedOut has the addresses that freeAddresses returned: whoever was given one may not listen on it yet.
var handedOut sync.Map

// freeAddresses are addresses that nobody listens on, and that nobody else of this process was given. They lie below the ranges from which systems draw the ports of outgoing connections,
// so that none of those takes one while a process is restarted.
func freeAddresses(n int) (addresses []string, err error) {
	for try := 0; len(addresses) < n; try++ {
		addr := "127.0.0.1:" + strconv.Itoa(20000+mathrand.IntN(10000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			if try > 1000 {
				return nil, err
			}
			continue
		}
		defer l.Close() // all are held until the last is found
		if _, is := handedOut.LoadOrStore(addr, true); !is {
			addresses = append(addresses, addr)
		}
	}
	return addresses, nil
}

// await waits until somebody listens.
func await(ctx context.Context, addr string) error {
	for end := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// awaitReady waits until a subcommand listens or has ended.
func (i *installation) awaitReady(ctx context.Context, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-i.process(name).ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	addr := map[string]string{"serve": i.api, "worker": i.admin["worker"]}[name]
	if err := await(ctx, addr); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s does not listen: %w", name, err)
	}
	return nil
}

// response is an answer of the API; status 0: there was none.
type response struct {
	status int
	header http.Header
	body   []byte
}

// same tells whether two responses are the same stored result.
func (r response) same(other response) bool {
	for _, name := range []string{"ETag", "Location", "Content-Type"} {
		if r.header.Get(name) != other.header.Get(name) {
			return false
		}
	}
	return r.status == other.status && string(r.body) == string(other.body)
}

func (r response) replayed() bool { return r.header.Get("Idempotency-Replayed") == "true" }

// code is the error code of a refusal.
func (r response) code() string {
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(r.body, &problem)
	return problem.Code
}

// id is the id of the order in a response.
func (r response) id() string {
	var o order
	_ = json.Unmarshal(r.body, &o)
	return o.ID
}

func (r response) String() string {
	return fmt.Sprintf("%d %s", r.status, r.body[:min(len(r.body), 300)])
}

// undecided tells whether the same request may have another answer later. A result that is stored under its key stays, also of a payment that failed.
func (r response) undecided() bool {
	return !r.replayed() && (r.status == 0 || r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusConflict && r.code() == "IDEM_003")
}

// send sends one request to the API's processes in turn. A failure of the connection is status 0.
func (i *installation) send(ctx context.Context, method, path, key, body string, wait bool) response {
	return i.sendTo(ctx, i.apis[int(i.turn.Add(1))%len(i.apis)], method, path, key, body, wait)
}

// sendTo is send to one process.
func (i *installation) sendTo(ctx context.Context, addr, method, path, key, body string, wait bool) response {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		return response{body: []byte(err.Error())}
	}
	r.Header.Set("Authorization", "Bearer "+i.key)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if wait {
		r.Header.Set("Prefer", "wait=10")
	}
	res, err := i.client.Do(r)
	if err != nil {
		return response{body: []byte(err.Error())}
	}
	defer res.Body.Close()
	answer := response{status: res.StatusCode, header: res.Header, body: nil}
	if answer.body, err = io.ReadAll(res.Body); err != nil {
		return response{body: []byte(err.Error())}
	}
	if method == http.MethodPost && answer.status/100 == 2 {
		i.done.Add(1)
	}
	if answer.status == http.StatusInternalServerError {
		i.internal.Add(1)
		i.lastInternal.Store(answer)
	}
	return answer
}

// insist sends the same request until it is decided, for a minute at most.
func (i *installation) insist(ctx context.Context, method, path, key, body string, wait bool) response {
	for end := time.Now().Add(time.Minute); ; {
		answer := i.send(ctx, method, path, key, body, wait)
		if !answer.undecided() || time.Now().After(end) || ctx.Err() != nil {
			return answer
		}
		<-time.After(20 * time.Millisecond)
	}
}
