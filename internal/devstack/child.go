package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// child is a server process. Child x writes its output to x.log, which is locked (flock) before the fork: the file stays locked as
// long as the child or anything it forked lives, even after our death, on Linux and macOS. x.pid names the process to signal; it is
// valid only while the log is locked.
type child struct {
	name string
	log  string
	done chan struct{} // closed when the process has ended
	err  error         // result of the process, once done
}

const (
	stopTimeout   = 10 * time.Second // for each signal, and for the start of a Program
	maxLog        = 10 << 20         // bytes; a longer log is truncated at the next start
	wrongPassword = "28P01"          // invalid_password
	startingUp    = "57P03"          // cannot_connect_now
)

// ends are the signals that end a child, from orderly to at once: for PostgreSQL fast, immediate, kill. None of them loses committed
// data.
var ends = []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL}

// runForks runs what forks on one OS thread, until forks is closed. Then the thread ends and with it, on Linux, the children that it
// forked. See DieWithParent.
func (s *Stack) runForks() {
	runtime.LockOSThread()
	for fork := range s.forks {
		fork()
	}
}

func (s *Stack) fork(cmd *exec.Cmd) error {
	started := make(chan error)
	s.forks <- func() { started <- cmd.Start() }
	return <-started
}

// asChild has a program run in the folder dir, as a user that PostgreSQL accepts, without our environment, in a process group of its
// own so that Ctrl-C at the terminal reaches only us.
func (s *Stack) asChild(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"} // macOS' PostgreSQL does not start without a locale
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.user}
	return cmd
}

// launch starts a child that begins an orderly shutdown when we die, and returns when it is ready.
func (s *Stack) launch(ctx context.Context, name string, cmd *exec.Cmd, ready func(context.Context) error) (*child, error) {
	c := &child{name: name, log: s.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err = flock(log); err != nil {
		return nil, fmt.Errorf("%s runs already: %w", name, err)
	}
	if info, err := log.Stat(); err == nil && info.Size() > maxLog {
		_ = log.Truncate(0)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if s.cfg.Prepare != nil {
		s.cfg.Prepare(name, cmd)
	}
	DieWithParent(cmd.SysProcAttr, ends[0])
	_ = os.Remove(s.path(name + ".pid")) // an old number may be anyone's by now
	if err = s.fork(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err = os.WriteFile(s.path(name+".pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil { // Stop would not find it
		_ = cmd.Process.Kill()
		<-c.done
		return nil, err
	}
	return c, c.await(ctx, ready)
}

var errPrimaryLost = errors.New("the primary does not answer")

// await polls ready until it returns nil. It gives up when the child ends or ctx does, when the primary is lost, and when PostgreSQL
// answers with an error other than that it is starting.
func (c *child) await(ctx context.Context, ready func(context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if answer, ok := errors.AsType[*pgconn.PgError](err); ok && answer.Code == wrongPassword {
			return fmt.Errorf("state.json has another password than the data of %s: restore it, or remove the folder to begin anew", c.name)
		} else if ok && answer.Code != startingUp || errors.Is(err, errPrimaryLost) {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		select {
		case <-c.done:
			return c.exitError()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (log: %s): %w: %w\n%s", c.name, c.log, ctx.Err(), err, tail(c.log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *child) exitError() error {
	return fmt.Errorf("%s ended: %w (log: %s)\n%s", c.name, cmp.Or(c.err, errors.New("exit status 0")), c.log, tail(c.log))
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// endAll stops all servers in a data folder, of this run or an earlier one: replicas, then the primary, then Redis.
func endAll(ctx context.Context, dir string) (err error) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	rank := map[string]int{"primary.log": 1, "redis.log": 2}
	slices.SortFunc(logs, func(a, b string) int { return cmp.Compare(rank[filepath.Base(a)], rank[filepath.Base(b)]) })
	for _, log := range logs {
		err = errors.Join(err, end(ctx, dir, strings.TrimSuffix(filepath.Base(log), ".log")))
	}
	return err
}

// end stops one child and returns when it and all that it forked are gone. When ctx is done it no longer waits for an orderly end.
func end(ctx context.Context, dir, name string) error {
	log, err := os.Open(filepath.Join(dir, name+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer log.Close()
	for i, sig := range ends {
		if flock(log) == nil {
			return nil
		}
		// Without a pid we died between fork and here, and the kernel has told the child.
		pid, _ := os.ReadFile(filepath.Join(dir, name+".pid"))
		if n, _ := strconv.Atoi(string(pid)); n > 1 {
			_ = syscall.Kill(n, sig) // if it is gone already, its children are ending
		}
		for begin := time.Now(); (ctx.Err() == nil || i > 0) && time.Since(begin) < stopTimeout && flock(log) != nil; {
			<-time.After(10 * time.Millisecond)
		}
	}
	if err := flock(log); err != nil {
		return fmt.Errorf("%s in %s does not end: %w", name, dir, err)
	}
	return nil
}

// flock takes the lock of a file for as long as we, or a child that inherited it, have it open.
func flock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
