package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ordergate/ordergate/contracttest"
	"github.com/ordergate/ordergate/internal/devstack"
)

const demoKey = "og_test_demo_key_for_local_use_only"

// program is `ordergate run` as a user starts it.
type program struct {
	t             *testing.T
	binary        string // of bin/
	env           []string
	cmd           *exec.Cmd
	dir           string
	url, payments string
	mu            sync.Mutex // of output
	output        *bytes.Buffer
	stderr        *os.File
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// start runs the real binary and waits until it says that it is ready.
func (p *program) start() {
	p.t.Helper()
	binary, err := filepath.Abs("bin/" + p.binary)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err = os.Stat(binary); err != nil {
		p.t.Fatalf("bin/%s is missing: make build failpoints", p.binary)
	}
	p.cmd = exec.Command(binary, "run")
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err = p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	output := &bytes.Buffer{}
	p.output = output
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.mu.Lock()
			output.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			if strings.Contains(lines.Text(), "Ctrl-C stops everything") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			p.t.Fatalf("it ended:\n%s", p.said())
		}
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("not ready in two minutes:\n%s", p.said())
	}
	p.payments = regexp.MustCompile(`Payments +(\S+)`).FindStringSubmatch(p.said())[1]
}

// end sends a signal and waits for the end.
func (p *program) end(sig syscall.Signal) {
	p.t.Helper()
	_ = p.cmd.Process.Signal(sig)
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if sig == syscall.SIGINT && err != nil {
			p.t.Errorf("after Ctrl-C: %v", err)
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("it does not end")
	}
}

func newProgram(t *testing.T) *program {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts servers")
	}
	dir, err := devstack.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api, admin := freePort(t), freePort(t)
	p := &program{t: t, binary: "ordergate", stderr: os.Stderr, dir: dir, url: "http://" + api, env: []string{
		"ORDERGATE_DATA_DIR=" + dir, "ORDERGATE_ADDR=" + api, "ORDERGATE_ADMIN_ADDR=" + admin, "ORDERGATE_PSP_ADDR=127.0.0.1:0",
	}}
	t.Cleanup(func() {
		if p.cmd != nil && p.cmd.ProcessState == nil {
			p.end(syscall.SIGKILL)
		}
		if err := devstack.Remove(context.WithoutCancel(t.Context()), dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// call sends a request with the demo key; an error of the transport is status 0.
func (p *program) call(method, path, body string, headers ...string) (int, map[string]any) {
	r, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+demoKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	var answer map[string]any
	b, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(b, &answer) != nil {
		return 0, nil
	}
	return res.StatusCode, answer
}

// TestRun uses the program as its users do: a curl, the TypeScript client, the contract's own tests, Ctrl-C and a second start.
func TestRun(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.env = append(p.env, "GOGC=", "GOMEMLIMIT=")
	p.start()
	if !regexp.MustCompile(`\n +Console +` + p.url + `/console\n +Portal +` + p.url + `/docs\n +API +` + p.url + ` `).MatchString(p.said()) {
		t.Errorf("console, portal and API are not printed in this order:\n%s", p.said())
	}
	printed := regexp.MustCompile(`(?s)curl -i .*\}'`).FindString(p.said())
	out, err := exec.Command("sh", "-c", strings.Replace(printed, "curl -i", "curl -sS -i", 1)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "201 Created") || !strings.Contains(string(out), `"status":"confirmed"`) {
		t.Errorf("the printed curl: %v\n%s", err, out)
	}
	t.Run("a key is made and used", p.takesKeys)
	p.npm(t, "web/ts", "build") // the portal's archive of the client is made of it, too
	t.Run("beside one another", func(t *testing.T) {
		t.Run("the contract holds", p.keepsTheContract)
		t.Run("the contract's tests notice lies", func(t *testing.T) {
			t.Parallel()
			if err := runTest("TestAProxyThatLiesIsFound", "-tags", "contract", "./contracttest", "-args", "-url="+p.url, "-key="+demoKey); err != nil {
				t.Error(err)
			}
		})
		t.Run("the TypeScript client works", func(t *testing.T) {
			t.Parallel()
			p.npm(t, "web/ts", "e2e")
		})
		t.Run("the portal works in a browser", func(t *testing.T) {
			t.Parallel()
			p.npm(t, "web/portal", "test")
		})
	})
	t.Run("servers that are killed come back", p.survives)
	before := p.listed()
	p.end(syscall.SIGINT)
	if log, err := os.ReadFile(filepath.Join(p.dir, "ordergate.log")); err != nil || !regexp.MustCompile(`"memory":{"GOGC":400,"GOMEMLIMIT":\d{8,},"available":\d{8,}}`).Match(log) {
		t.Errorf("the log does not say how the collector is set: %v", err)
	}
	begin := time.Now()
	p.start()
	t.Logf("the second start took %v", time.Since(begin))
	p.keeps(before)
	p.end(syscall.SIGINT)
}

// takesKeys makes a key in the database of the running program, as an operator who names nothing but its folder.
func (p *program) takesKeys(t *testing.T) {
	keys := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("bin/ordergate", append([]string{"keys"}, args...)...)
		cmd.Env = append(os.Environ(), "ORDERGATE_DATA_DIR="+p.dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("keys %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	made := strings.Fields(keys("create", "-account", "demo", "-name", "operator"))
	if len(made) < 4 || !strings.Contains(keys("list"), made[1]+"  demo") {
		t.Fatalf("made: %q", made)
	}
	if status, answer := p.call("GET", "/v1/orders", "", "Authorization", "Bearer "+made[3]); status != http.StatusOK {
		t.Errorf("%d %v", status, answer)
	}
	keys("revoke", made[1])
}

// runTest runs one test by `go test` with more arguments. A test that is not there, or is skipped, has not passed.
func runTest(name string, args ...string) error {
	out, err := exec.Command("go", append([]string{"test", "-count=1", "-v", "-run", "^" + name + "$"}, args...)...).CombinedOutput()
	if err == nil && !regexp.MustCompile(`(?m)^--- PASS: `+name+` `).Match(out) {
		err = errors.New("it was not run")
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// TestATestThatIsNotRunDoesNotPass keeps a test that another process runs from passing under another name, or skipped.
func TestATestThatIsNotRunDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"TestCatch":                 {[]string{"./internal/panics"}, ""},
		"TestRenamed":               {[]string{"./internal/panics"}, "it was not run"},
		"TestParts":                 {[]string{"-short", "./internal/chaos"}, "it was not run"},
		"TestContract":              {[]string{"-tags", "contract", "./contracttest"}, "needs an address and a key"},
		"TestAProxyThatLiesIsFound": {[]string{"-tags", "contract", "./contracttest"}, "needs an address and a key"},
	} {
		if err := runTest(name, tt.args...); (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// npm runs a script of a folder of web/ against the program.
func (p *program) npm(t *testing.T, folder, script string) {
	t.Helper()
	npm := exec.Command("npm", "--prefix", folder, "run", "--silent", script)
	npm.Env = append(os.Environ(), "ORDERGATE_URL="+p.url, "ORDERGATE_KEY="+demoKey)
	if out, err := npm.CombinedOutput(); err != nil {
		t.Errorf("%v (npm comes with make ts; sh web/node.sh names its folder)\n%s", err, out)
	}
}

// keepsTheContract runs the suite with all keys. Whatever the contract lists must have been answered, but for what depends on the moment or
// takes a quarter of an hour.
func (p *program) keepsTheContract(t *testing.T) {
	t.Parallel()
	secret, err := os.ReadFile(filepath.Join(p.dir, "provider-secret"))
	if err != nil {
		t.Fatal(err)
	}
	key := func(kind string) string { return "og_test_demo_" + kind + "_key_for_local_use_only" }
	report := contracttest.RunWith(t, contracttest.Options{
		BaseURL: p.url, Key: demoKey, Requests: 500, NarrowKeys: []string{key("reads"), key("writes")}, ExpiredKey: key("expired"), RevokedKey: key("revoked"),
		ProviderSecret: strings.TrimSpace(string(secret)),
	})
	for _, triple := range report.Matrix {
		if triple.State != contracttest.Proven && triple.Code != "INV_003" && triple.Code != "ORD_009" {
			t.Errorf("%s %d %s: %s %s", triple.Operation, triple.Status, triple.Code, triple.State, triple.Why)
		}
	}
}

// listed is a list of orders, which the servers may not give at once after they were killed.
func (p *program) listed() map[string]any {
	for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		status, list := p.call("GET", "/v1/orders?limit=100", "")
		if orders, _ := list["data"].([]any); status == http.StatusOK && len(orders) > 0 || time.Now().After(end) {
			return list
		}
	}
}

// keeps requires every order of a list that was read before. A saga may have gone on since, and the replica may lag until the deadline.
func (p *program) keeps(before map[string]any) {
	orders, _ := before["data"].([]any)
	if len(orders) == 0 {
		p.t.Error("no order was listed")
	}
	for _, o := range orders {
		want := o.(map[string]any)
		for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			status, got := p.call("GET", "/v1/orders/"+want["id"].(string), "")
			version, _ := got["version"].(float64)
			if status == 200 && (version > want["version"].(float64) || reflect.DeepEqual(got, want)) {
				break
			}
			if time.Now().After(end) {
				p.t.Errorf("the second start answers %d %v, not %v", status, got, want)
				break
			}
		}
	}
}

// survives kills the program's children one by one; each comes back, and orders are placed and read as before.
func (p *program) survives(t *testing.T) {
	for i, name := range []string{"redis", "replica", "primary", "psp"} {
		pid, err := os.ReadFile(filepath.Join(p.dir, name+".pid"))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(pid))
		if err = syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		body := `{"currency":"EUR","customer_ref":"survivor","lines":[{"sku":"LAMP-0001","quantity":1}],"payment":{"method_token":"pm_ok"}}`
		for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			status, placed := p.call("POST", "/v1/orders", body, "Idempotency-Key", fmt.Sprintf("survivor-%d", i), "Prefer", "wait=10")
			if id, _ := placed["id"].(string); status == 201 {
				if status, read := p.call("GET", "/v1/orders/"+id, ""); status != 200 || read["status"] != "confirmed" {
					t.Errorf("%s: %d %v", name, status, read)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s was killed: %d %v", name, status, placed)
			}
		}
		for end := time.Now().Add(time.Minute); !strings.Contains(p.said(), name+" is back"); <-time.After(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not back:\n%s", name, p.said())
			}
		}
	}
	if strings.Contains(p.said(), "LOG: ") || strings.Contains(p.said(), "FATAL: ") || !strings.Contains(p.said(), "(log: "+p.dir+"/primary.log)\n") {
		t.Errorf("logs are poured over the terminal:\n%s", p.said())
	}
}

// TestRefusedStarts: faults that can be known before anything is started end the start with a message.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"a port that is taken":              {[]string{"ORDERGATE_ADDR=" + taken.Addr().String()}, "choose others: ORDERGATE_ADDR="},
		"one address for two":               {[]string{"ORDERGATE_ADDR=127.0.0.1:28123", "ORDERGATE_ADMIN_ADDR=localhost:28123"}, "same address"},
		"one address for API and simulator": {[]string{"ORDERGATE_ADDR=127.0.0.1:28124", "ORDERGATE_PSP_ADDR=:28124"}, "same address"},
		"a level of logs that there is not": {[]string{"ORDERGATE_LOG_LEVEL=foo"}, "cannot parse ORDERGATE_LOG_LEVEL"},
		"an origin with a path":             {[]string{"ORDERGATE_ORIGINS=http://localhost:3000/"}, "ORDERGATE_ORIGINS"},
		"a folder in a file":                {[]string{"ORDERGATE_DATA_DIR=Makefile/data"}, "ordergate: cannot use the data folder (ORDERGATE_DATA_DIR): mkdir /"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t)
			run := exec.Command("bin/ordergate", "run")
			run.Env = append(append(os.Environ(), p.env...), c.env...)
			out, err := run.CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v\n%s", err, out)
			}
			if left, err := os.ReadDir(p.dir); len(left) > 0 || err != nil {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestInterruptedStart: Ctrl-C at any step of the first start ends it within seconds, with status 0 and no word but that it stops, and the next
// start works.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	for _, step := range []string{"making the primary", "copying the primary", "migrating the database", "the catalogue has"} {
		run := exec.Command("bin/ordergate", "run")
		run.Env = append(os.Environ(), p.env...)
		out, err := run.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		said := &bytes.Buffer{}
		run.Stderr = said
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		hung := time.AfterFunc(30*time.Second, func() { _ = run.Process.Kill() })
		last := ""
		for lines := bufio.NewScanner(out); lines.Scan(); {
			last = lines.Text()
			if strings.Contains(last, step) {
				_ = run.Process.Signal(syscall.SIGINT)
			}
		}
		err = run.Wait()
		if !hung.Stop() || err != nil || said.Len() > 0 || !strings.HasPrefix(last, "Stopping; your data stays in "+p.dir) {
			t.Errorf("interrupted when it said %q: %v, the last line is %q\n%s", step, err, last, said)
		}
	}
	p.start()
	p.end(syscall.SIGINT)
}

// TestAPanicLosesNoLine: the log has every request that was answered before a panic ended the program, whichever goroutine it was in.
func TestAPanicLosesNoLine(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.binary, p.env = "ordergate-failpoints", append(p.env, "ORDERGATE_FAILPOINTS=consumer.done=panic")
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	p.stderr = said
	p.start()
	const requests = 100
	for i := range requests {
		if status, _ := p.call("GET", "/v1/orders", "", "X-Trace-ID", fmt.Sprintf("before-%d-", i)); status != http.StatusOK {
			t.Fatalf("%d", status)
		}
	}
	p.call("POST", "/v1/orders", `{"currency":"EUR","customer_ref":"c","lines":[{"sku":"LAMP-0001","quantity":1}],"payment":{"method_token":"pm_ok"}}`,
		"Idempotency-Key", "the-last-one")
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	out, _ := os.ReadFile(said.Name())
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "panic: failpoint consumer.done") {
		t.Fatalf("%v\n%s", err, out)
	}
	log, err := os.ReadFile(filepath.Join(p.dir, "ordergate.log"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range requests {
		if !strings.Contains(string(log), fmt.Sprintf(`"trace_id":"before-%d-"`, i)) {
			t.Fatalf("request %d of %d is not in the log, which ends\n%s", i, requests, log[max(0, len(log)-1000):])
		}
	}
}

// TestALogThatCannotBeWritten: a full disk and a reader of the log that is gone end nothing.
func TestALogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts the program")
	}
	reader, gone, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer gone.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here")
	}
	defer full.Close()
	for name, end := range map[string]*os.File{"a full disk": full, "a closed pipe": gone} {
		addr := freePort(t)
		psp := exec.Command("bin/ordergate", "psp")
		psp.Env, psp.Stderr = append(os.Environ(), "ORDERGATE_PSP_ADDR="+addr, "ORDERGATE_PSP_DIR="+t.TempDir()), end
		if err := psp.Start(); err != nil {
			t.Fatal(err)
		}
		hung := time.AfterFunc(time.Minute, func() { _ = psp.Process.Kill() })
		for begin := time.Now(); time.Since(begin) < 30*time.Second; <-time.After(20 * time.Millisecond) {
			if res, err := http.Get("http://" + addr + "/v1/ledger"); err == nil {
				_ = res.Body.Close()
				break
			}
		}
		_ = psp.Process.Signal(syscall.SIGINT) // it writes what is buffered
		if err := psp.Wait(); err != nil || !hung.Stop() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSignals: what ends the program is in its log, with all lines before it. A terminal that closes is SIGTERM, unless nohup holds it off; SIGQUIT
// and SIGABRT print the stacks of all goroutines.
func TestSignals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts the program")
	}
	const stopped = `"msg":"stopped"}` + "\n"
	for name, c := range map[string]struct {
		ignores string // as nohup does
		signals []syscall.Signal
		status  int
		want    []string // of stderr, in this order
	}{
		"SIGTERM":           {"", []syscall.Signal{syscall.SIGTERM}, 0, []string{`"msg":"stopping","cause":"terminated signal received"}`, stopped}},
		"SIGINT":            {"", []syscall.Signal{syscall.SIGINT}, 0, []string{`"msg":"stopping","cause":"interrupt signal received"}`, stopped}},
		"SIGHUP, twice":     {"", []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP}, 0, []string{`"msg":"stopping","cause":"hangup signal received"}`, stopped}},
		"SIGHUP with nohup": {"trap '' HUP; ", []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}, 0, []string{`"cause":"terminated signal received"}`, stopped}},
		"SIGQUIT":           {"", []syscall.Signal{syscall.SIGQUIT}, 2, []string{"SIGQUIT: quit", "goroutine ", "psp.(*Simulator).Serve"}},
		"SIGABRT":           {"", []syscall.Signal{syscall.SIGABRT}, 2, []string{"SIGABRT: abort", "goroutine ", "psp.(*Simulator).Serve"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := freePort(t)
			psp := exec.Command("sh", "-c", c.ignores+"exec bin/ordergate psp")
			said := &bytes.Buffer{}
			psp.Env, psp.Stderr = append(os.Environ(), "ORDERGATE_PSP_ADDR="+addr, "ORDERGATE_PSP_DIR="+t.TempDir()), said
			if err := psp.Start(); err != nil {
				t.Fatal(err)
			}
			hung := time.AfterFunc(time.Minute, func() { _ = psp.Process.Kill() })
			for begin := time.Now(); time.Since(begin) < 30*time.Second; <-time.After(5 * time.Millisecond) {
				if res, err := http.Get("http://" + addr + "/v1/ledger"); err == nil {
					_ = res.Body.Close()
					break
				}
			}
			for _, s := range c.signals {
				_ = psp.Process.Signal(s)
			}
			_ = psp.Wait()
			rest, status := said.String(), psp.ProcessState.ExitCode()
			for _, want := range append([]string{`"msg":"listening"`}, c.want...) {
				_, after, found := strings.Cut(rest, want)
				if rest = after; !found {
					t.Errorf("%q is missing", want)
				}
			}
			if !hung.Stop() || status != c.status {
				t.Errorf("exit status %d", status)
			}
			if t.Failed() {
				t.Log(said)
			}
		})
	}
}

// TestKilledInTheMiddle kills the program by kill -9 again and again in the middle of 200 orders. In the end each key has one order,
// each order has ended, and the stock and the provider's books agree with the orders.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.env = append(p.env, "ORDERGATE_PAYMENT_TIMEOUT=30s") // production's: starts on a busy machine must not use up a payment's time
	p.start()
	const sku, orders = "PEN-0003", 200
	_, before := p.call("GET", "/v1/inventory/"+sku, "")
	keys := make(chan int)
	var wg sync.WaitGroup
	var mu sync.RWMutex // held for writing while the program is down
	answered := make([]string, orders)
	for range 8 {
		wg.Go(func() {
			for i := range keys {
				token := []string{"pm_ok", "pm_ok", "pm_declined", "pm_flaky", "pm_timeout_charged"}[i%5]
				body := fmt.Sprintf(`{"currency":"EUR","customer_ref":"kill","lines":[{"sku":"%s","quantity":1}],"payment":{"method_token":"%s"}}`, sku, token)
				for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
					mu.RLock()
					status, answer := p.call("POST", "/v1/orders", body, "Idempotency-Key", fmt.Sprintf("kill-%06d", i))
					mu.RUnlock()
					if status == 202 {
						answered[i] = answer["id"].(string)
						break
					}
					if status != 0 && status != 409 && status < 500 {
						t.Errorf("order %d: %d %v", i, status, answer)
						break
					}
				}
			}
		})
	}
	for i := range orders {
		keys <- i
		if i%60 == 59 {
			_ = p.cmd.Process.Kill() // while requests and sagas run
			mu.Lock()
			_, _ = p.cmd.Process.Wait()
			p.start()
			mu.Unlock()
		}
	}
	close(keys)
	wg.Wait()

	ends, reasons := map[string]string{}, map[string]string{}
	var open int
	for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		open = 0
		for cursor := ""; ; {
			_, page := p.call("GET", "/v1/orders?limit=100&customer_ref=kill"+cursor, "")
			if page == nil {
				t.Fatal("cannot list orders")
			}
			for _, o := range page["data"].([]any) {
				o := o.(map[string]any)
				ends[o["id"].(string)] = o["status"].(string)
				if why, ok := o["rejection"].(map[string]any); ok {
					reasons[o["id"].(string)] = why["code"].(string)
				}
				if s := o["status"]; s != "confirmed" && s != "rejected" && s != "cancelled" {
					open++
				}
			}
			next, more := page["next_cursor"].(string)
			if !more {
				break
			}
			cursor = "&cursor=" + next
		}
		if open == 0 {
			break
		}
	}
	count := map[string]int{}
	for _, status := range ends {
		count[status]++
	}
	for _, code := range reasons {
		count[code]++
	}
	t.Log(count)
	if open != 0 || len(ends) != orders || count["confirmed"] != 160 || count["rejected"] != 40 {
		t.Errorf("%d orders of %d keys, %d not ended: %v", len(ends), orders, open, count)
	}
	for i, id := range answered {
		if ends[id] == "" {
			t.Errorf("order %d was answered and is lost", i)
		}
	}
	_, after := p.call("GET", "/v1/inventory/"+sku, "")
	if sold := before["on_hand"].(float64) - after["on_hand"].(float64); sold != float64(count["confirmed"]) || after["reserved"].(float64) != 0 {
		t.Errorf("%v pieces left the stock, %v are held", sold, after["reserved"])
	}
	captured := map[string]int{}
	for after := 0; ; {
		res, err := http.Get(fmt.Sprintf("%s?limit=100&after=%d", p.payments, after))
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Data []struct {
				Payment string `json:"payment"`
				Kind    string `json:"kind"`
				Status  string `json:"status"`
			} `json:"data"`
			Next *int `json:"next"`
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Data {
			if e.Kind == "capture" && e.Status == "succeeded" {
				captured[e.Payment]++
			}
		}
		if page.Next == nil {
			break
		}
		after = *page.Next
	}
	for payment, n := range captured {
		if n != 1 {
			t.Errorf("%s was charged %d times", payment, n)
		}
	}
	if len(captured) != count["confirmed"] {
		t.Errorf("%d charges for %d confirmed orders", len(captured), count["confirmed"])
	}
	p.end(syscall.SIGINT)
}
