package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

func connect(addr string) int {
	to := try(netip.ParseAddrPort(addr))
	fd := try(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	must(unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	must(unix.SetNonblock(fd, true))
	return fd
}

func disconnect(fd int) { _ = unix.Close(fd) }

// writeAll writes a request, which fits into the socket's buffer.
func writeAll(fd int, request []byte) error {
	n, err := unix.Write(fd, request)
	if err == nil && n < len(request) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	return nil
}

// readSome reads what has come, by way of a buffer, and appends it. The end of the connection is an error.
func readSome(fd int, buffer, to []byte) ([]byte, error) {
	n, err := unix.Read(fd, buffer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return to, fmt.Errorf("read an answer: %w", err)
	}
	return append(to, buffer[:n]...), nil
}

// drive has all readers of a leg ask until stop says so, and then waits for their answers. One thread asks for all of them and blocks in epoll
// alone: goroutines that wait for their connections took twice the CPU.
func (l *leg) drive(stop func() bool) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer disconnect(poll)
	waiting, buffer := 0, make([]byte, 64<<10)
	ask := func(r *reader) error {
		waiting++
		if err := writeAll(r.fd, l.request(r)); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		return nil
	}
	for i, r := range l.readers {
		if err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, r.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
		if err = ask(r); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, len(l.readers))
	for waiting > 0 {
		ready, err := unix.EpollWait(poll, events, 10_000)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case ready == 0:
			return fmt.Errorf("%s: no answer within 10 s", l.name)
		}
		for _, event := range events[:ready] {
			r := l.readers[event.Fd]
			if r.in, err = readSome(r.fd, buffer, r.in); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			complete, err := l.received(r)
			if err != nil {
				return err
			}
			if complete {
				if waiting--; !stop() {
					if err = ask(r); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
