package devstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/internal/leaktest"
)

// TestMain is a run of the stack in a process of its own when a test asks for it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DEVSTACK_TEST_RUN"); dir != "" {
		s, err := Start(context.Background(), Config{Dir: dir, Replicas: replicas})
		if err != nil {
			fmt.Fprintln(os.Stdout, err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, s.PrimaryURL)
		select {}
	}
	leaktest.Main(m)
}

var replicas = []Replica{{Name: "replica"}, {Name: "lagging", ApplyDelay: 2 * time.Second}}

func TestData(t *testing.T) {
	dir := scratch(t)
	first := start(t, dir, replicas)
	t.Run("a second run in the folder is refused", func(t *testing.T) {
		want := "in use by another run, process " + strconv.Itoa(os.Getpid())
		if _, err := Start(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatal(err)
		}
		if err := Remove(t.Context(), dir); err == nil {
			t.Fatal("removed")
		}
	})
	t.Run("its address is found beside it", func(t *testing.T) {
		if primary, _, err := Running(dir); primary != first.PrimaryURL || err != nil {
			t.Error(primary, err)
		}
	})
	t.Run("a row reaches the replica at once and the lagging one 2 s later", func(t *testing.T) {
		exec1(t, first.PrimaryURL, "CREATE TABLE rows (id int)")
		exec1(t, first.PrimaryURL, "INSERT INTO rows VALUES (1)")
		written := time.Now()
		awaitRows(t, first.ReplicaURLs[0], 1)
		if took := time.Since(written); took > time.Second {
			t.Errorf("replica took %v", took)
		}
		awaitRows(t, first.ReplicaURLs[1], 1)
		if took := time.Since(written); took < 1900*time.Millisecond {
			t.Errorf("lagging replica took %v", took)
		}
	})
	t.Run("durability is on", func(t *testing.T) {
		for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			if v := query[string](t, first.PrimaryURL, "SELECT current_setting('"+setting+"')"); v != "on" {
				t.Errorf("%s is %s", setting, v)
			}
		}
	})
	stop(t, first)

	t.Run("a later start has the rows and the ports", func(t *testing.T) {
		s := start(t, dir, replicas)
		if s.PrimaryURL != first.PrimaryURL || s.RedisURL != first.RedisURL {
			t.Error("ports changed")
		}
		awaitRows(t, s.PrimaryURL, 1)
		awaitRows(t, s.ReplicaURLs[1], 1)
		stop(t, s)
	})
	t.Run("a replica that a run left out comes back", func(t *testing.T) {
		s := start(t, dir, replicas[:1])
		exec1(t, s.PrimaryURL, "INSERT INTO rows VALUES (2)")
		stop(t, s)
		s = start(t, dir, replicas)
		awaitRows(t, s.ReplicaURLs[1], 2)
		stop(t, s)
	})
	t.Run("a replica that cannot follow is rebuilt", func(t *testing.T) {
		s := start(t, dir, replicas[:1])
		stop(t, s)
		if err := os.Remove(filepath.Join(dir, "replica", "global", "pg_control")); err != nil {
			t.Fatal(err)
		}
		s = start(t, dir, replicas[:1])
		awaitRows(t, s.ReplicaURLs[0], 2)
		stop(t, s)
	})
	t.Run("a taken port is replaced", func(t *testing.T) {
		cfg, err := pgx.ParseConfig(first.PrimaryURL)
		if err != nil {
			t.Fatal(err)
		}
		l, _, err := listen(int(cfg.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := start(t, dir, replicas[:1])
		if s.PrimaryURL == first.PrimaryURL {
			t.Error("same port")
		}
		exec1(t, s.PrimaryURL, "INSERT INTO rows VALUES (3)")
		awaitRows(t, s.ReplicaURLs[0], 3)
		stop(t, s)
	})
	t.Run("what would lose the data is refused, and nothing is overwritten", func(t *testing.T) {
		kept, err := os.ReadFile(filepath.Join(dir, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		var known state
		if err = json.Unmarshal(kept, &known); err != nil {
			t.Fatal(err)
		}
		refused := func(content []byte, want string) {
			t.Helper()
			if content == nil {
				_ = os.Remove(filepath.Join(dir, "state.json"))
			} else if err := os.WriteFile(filepath.Join(dir, "state.json"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Start(t.Context(), Config{Dir: dir})
			if err == nil {
				stop(t, s)
			}
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "%!") {
				t.Errorf("%s: %v", content, err)
			}
			if now, _ := os.ReadFile(filepath.Join(dir, "state.json")); !bytes.Equal(now, content) {
				t.Errorf("%s became %s", content, now)
			}
		}
		refused(nil, "state.json is gone")
		for _, torn := range []string{"", "null", "{}", `{"password":"","ports":{}}`, `{"password":"x","ports":null}`} {
			refused([]byte(torn), "cannot be read")
		}
		refused(bytes.ReplaceAll(kept, []byte(known.Password), []byte("another")), "another password")
		if err = os.WriteFile(filepath.Join(dir, "state.json"), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		if err = os.Rename(filepath.Join(dir, "primary"), filepath.Join(dir, "lost")); err != nil {
			t.Fatal(err)
		}
		if _, err = Start(t.Context(), Config{Dir: dir, Replicas: replicas}); err == nil || !strings.Contains(err.Error(), "last copy") {
			t.Error(err)
		}
	})
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

func TestKilledPostmasterIsReportedAndRecovers(t *testing.T) {
	dir := scratch(t)
	s := start(t, dir, replicas[:1])
	exec1(t, s.PrimaryURL, "CREATE TABLE rows (id int)")
	for n := 1; n <= 3; n++ {
		exec1(t, s.PrimaryURL, "INSERT INTO rows VALUES (1)")
		kill(t, dir, "primary")
		select {
		case exit := <-s.Exits():
			err := exit.Err
			if !strings.Contains(err.Error(), "primary ended: signal: killed") || !strings.Contains(err.Error(), "ready to accept connections") {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody told")
		}
		stop(t, s)
		s = start(t, dir, replicas[:1])
		awaitRows(t, s.PrimaryURL, n)
		awaitRows(t, s.ReplicaURLs[0], n)
	}
	for _, name := range []string{"replica", "redis", "primary"} {
		kill(t, dir, name)
		if exit := <-s.Exits(); exit.Name != name {
			t.Errorf("%s died, not %s", exit.Name, name)
		}
		if err := s.Restart(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	exec1(t, s.PrimaryURL, "INSERT INTO rows VALUES (1)")
	awaitRows(t, s.ReplicaURLs[0], 4)
	kill(t, dir, "replica")
	kill(t, dir, "redis")
	stop(t, s)
	stop(t, start(t, dir, replicas[:1]))
}

func TestKilledRunLeavesNothingRunning(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("only Linux ends the children; the next Start stops them elsewhere")
	}
	dir := scratch(t)
	for n := 1; n <= 3; n++ {
		run := exec.Command(os.Args[0])
		run.Env = append(os.Environ(), "DEVSTACK_TEST_RUN="+dir)
		out, err := run.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err = run.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 4096)
		size, err := out.Read(line)
		url := strings.TrimSpace(string(line[:size]))
		if err != nil || !strings.HasPrefix(url, "postgres://") {
			t.Fatal(err, url)
		}
		exec1(t, url, "CREATE TABLE IF NOT EXISTS rows (id int)")
		exec1(t, url, "INSERT INTO rows VALUES (1)")
		if err = run.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = run.Wait()
		if n == 2 && runtime.GOOS == "linux" {
			poll(t, "the children to end", func() error {
				if left := processes(t, dir); len(left) > 0 {
					return fmt.Errorf("%v", left)
				}
				return nil
			})
		} // else the next start meets them shutting down
	}
	s := start(t, dir, replicas)
	awaitRows(t, s.PrimaryURL, 3)
	stop(t, s)
}

// TestInterruptedStart: a start that is interrupted while initdb or pg_basebackup runs ends at once and leaves nothing running, nor
// what they forked; the next start works.
func TestInterruptedStart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it looks for processes in /proc")
	}
	dir := scratch(t)
	for _, c := range [][2]string{{"bin/initdb", ""}, {"bin/pg_basebackup", "streaming"}} { // parts of their command lines
		program, child := c[0], c[1]
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		ended := make(chan error, 1)
		go func() {
			s, err := Start(ctx, Config{Dir: dir, Replicas: replicas[:1]})
			if err == nil {
				err = errors.Join(errors.New("it started"), s.Stop(t.Context()))
			}
			ended <- err
		}()
		poll(t, program, func() error {
			pid, forked := 0, false
			for n, line := range processes(t, dir) {
				forked = forked || strings.Contains(line, child)
				if group, err := syscall.Getpgid(n); err == nil && group == n && strings.Contains(line, program) {
					pid = n
				}
			}
			if pid == 0 || !forked {
				return errors.New("it does not run")
			}
			return syscall.Kill(pid, syscall.SIGSTOP) // so that it is in its middle until it is killed
		})
		interrupt()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", program, err)
			}
		case <-time.After(5 * time.Second):
			for pid := range processes(t, dir) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			t.Fatalf("%s: it does not end", program)
		}
		if left := processes(t, dir); len(left) > 0 {
			t.Errorf("%s: left running: %v", program, left)
		}
	}
	stop(t, start(t, dir, replicas[:1]))
}

// TestRunning: a stack is found only while it runs.
func TestRunning(t *testing.T) {
	dir := t.TempDir()
	none := func(when string) {
		t.Helper()
		if _, _, err := Running(dir); err == nil || !strings.Contains(err.Error(), "no stack runs in "+dir) {
			t.Errorf("%s: %v", when, err)
		}
	}
	none("an empty folder")
	state := `{"password":"secret","ports":{"primary":4711},"urls":{"psp":"http://127.0.0.1:8090"}}`
	if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	none("after its end")
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	primary, programs, err := Running(dir)
	if primary != "postgres://ordergate:secret@127.0.0.1:4711/ordergate?sslmode=disable" || programs["psp"] != "http://127.0.0.1:8090" || err != nil {
		t.Error(primary, programs, err)
	}
}

// TestFreeLeavesNothing: a look at a folder makes nothing that stays, and takes nothing away that was there.
func TestFreeLeavesNothing(t *testing.T) {
	base := t.TempDir()
	free := func(dir string) {
		t.Helper()
		if err := Free(dir); err != nil {
			t.Error(err)
		}
	}
	free(filepath.Join(base, "above", "data"))
	if left, err := os.ReadDir(base); len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
	dir := filepath.Join(base, "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	free(dir)
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left in a folder that was there: %v, %v", left, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err = Free(dir); err == nil || !strings.Contains(err.Error(), "is in use by another run") {
		t.Error(err)
	}
	if err = lock.Close(); err != nil {
		t.Fatal(err)
	}
	free(dir)
	if !exists(lock.Name()) {
		t.Error("the lock of another run was removed")
	}
}

// TestUnusableFolder: a folder that cannot be made ends the start with one line, and a file in its place keeps its mode.
func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "data")} {
		if err := Free(dir); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// TestFullDisk: a first start on a disk that is too small ends with a sentence that says so, at whichever write the disk is full.
func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a small disk of one's own is a tmpfs in a user namespace of Linux")
	}
	other, err := user.Lookup("daemon") // PostgreSQL refuses root, and users without a name
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"8k", "100k", "1m", "30m", "45m", "60m", "75m"} {
		t.Run(size, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, "unshare", "-Urm", "sh", "-c", `mount -t tmpfs -o "size=$1,mode=777" tmpfs "$2" &&
				exec unshare -U "--map-user=$3" "--map-group=$4" "$5"`, "sh", size, dir, other.Uid, other.Gid, os.Args[0])
			run.Env = append(os.Environ(), "DEVSTACK_TEST_RUN="+filepath.Join(dir, "data"))
			out, err := run.CombinedOutput()
			if strings.Contains(string(out), "unshare:") || strings.Contains(string(out), "mount:") {
				t.Fatalf("this test needs user namespaces (unshare -Urm): allow them in the kernel, and in the container if this is one: %s", out)
			}
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "the disk is full") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	t.Run("a start that needs more than is free is refused", func(t *testing.T) {
		dir := scratch(t)
		s, err := Start(t.Context(), Config{Dir: dir, MinFree: math.MaxInt64})
		if err == nil {
			stop(t, s)
		}
		if !errors.Is(err, errDiskFull) || exists(filepath.Join(dir, "primary")) {
			t.Error(err)
		}
	})
}

func TestNamesOfFolders(t *testing.T) {
	a, b := DataDir("/home/a"), DataDir("/home/b")
	if a == b || !filepath.IsAbs(a) || (os.Getuid() != 0 && a != "/home/a/.ordergate") {
		t.Error(a, b)
	}
}

// scratch is a folder that is removed at the end, with the servers that the test left running in it.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(endAll(context.WithoutCancel(t.Context()), dir), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func start(t *testing.T, dir string, replicas []Replica) *Stack {
	t.Helper()
	begin := time.Now()
	s, err := Start(t.Context(), Config{Dir: dir, Replicas: replicas, Progress: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begin).Round(time.Millisecond))
	return s
}

func stop(t *testing.T, s *Stack) {
	t.Helper()
	begin := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
}

func kill(t *testing.T, dir, name string) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(dir, name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(string(pid))
	if err = syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// processes are the command lines, by pid, of the processes that run in a folder, as the kernel tells.
func processes(t *testing.T, dir string) map[int]string {
	t.Helper()
	found := map[int]string{}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if line, _ := os.ReadFile(path); strings.HasPrefix(cwd, dir) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found[pid] = string(line)
		}
	}
	return found
}

func exec1(t *testing.T, url, sql string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err == nil {
		defer db.Close(t.Context())
		_, err = db.Exec(t.Context(), sql)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func query[T any](t *testing.T, url, sql string) (v T) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err == nil {
		defer db.Close(t.Context())
		err = db.QueryRow(t.Context(), sql).Scan(&v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func awaitRows(t *testing.T, url string, want int) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	poll(t, strconv.Itoa(want)+" rows", func() error {
		var n int
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM rows").Scan(&n); err != nil {
			return err
		} else if n != want {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
}

func poll(t *testing.T, what string, ready func() error) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if err := ready(); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}
