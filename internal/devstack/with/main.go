// Command with runs a command against a throw-away PostgreSQL primary with two replicas and a Redis:
//
//	go run ./internal/devstack/with -- go test ./...
//
// The command finds them in ORDERGATE_TEST_PRIMARY, ORDERGATE_TEST_REPLICA, ORDERGATE_TEST_LAGGING (2 s behind) and
// ORDERGATE_TEST_REDIS, and its exit status is ours. Missing servers are installed first. Everything is stopped and removed
// at the end, also after SIGINT, SIGTERM, or the end of the process that started us.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/ordergate/ordergate/internal/devstack"
)

// grace is how long an interrupted command may take to end, and the servers after it.
const grace = 10 * time.Second

func main() {
	runtime.LockOSThread() // see devstack.DieWithParent
	if len(os.Args) < 3 || os.Args[1] != "--" {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/devstack/with -- COMMAND ARGUMENTS...")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	go func() { // go run passes no SIGTERM on, it only dies
		for parent := os.Getppid(); os.Getppid() == parent; {
			<-time.After(time.Second)
		}
		cancel()
	}()
	status, err := with(ctx, os.Args[2:])
	if err != nil {
		sayf("%v", err)
		status = max(status, 1)
	}
	stop()
	os.Exit(status)
}

// with returns the exit status of the command. The error is about everything else.
func with(ctx context.Context, command []string) (status int, err error) {
	if err = devstack.Install(ctx, os.Stderr); err != nil {
		return 0, err
	}
	dir, err := devstack.Scratch(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	sayf("starting PostgreSQL, two replicas and Redis in %s", dir)
	stack, err := devstack.Start(ctx, devstack.Config{Dir: dir,
		Replicas: []devstack.Replica{{Name: "replica"}, {Name: "lagging", ApplyDelay: 2 * time.Second}}})
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if stack != nil {
			err = errors.Join(err, stack.Stop(ctx))
		}
		err = errors.Join(err, devstack.Remove(ctx, dir))
		sayf("stopped and removed the servers")
	}()
	if err != nil && ctx.Err() != nil {
		return 128 + int(syscall.SIGINT), errors.New("interrupted while starting")
	} else if err != nil {
		return 0, err
	}
	go func() { sayf("%v", (<-stack.Exits()).Err) }()
	sayf("started in %.1f s, running %v", time.Since(begin).Seconds(), command)

	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "ORDERGATE_TEST_PRIMARY="+stack.PrimaryURL, "ORDERGATE_TEST_REPLICA="+stack.ReplicaURLs[0],
		"ORDERGATE_TEST_LAGGING="+stack.ReplicaURLs[1], "ORDERGATE_TEST_REDIS="+stack.RedisURL)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children can be signalled too
	devstack.DieWithParent(cmd.SysProcAttr, syscall.SIGKILL)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	if err = cmd.Start(); err != nil {
		return 127, err
	}
	_ = cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // children that it left
	if ended, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ended.Signaled() {
		return 128 + int(ended.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

func sayf(format string, args ...any) { fmt.Fprintf(os.Stderr, "with: "+format+"\n", args...) }
