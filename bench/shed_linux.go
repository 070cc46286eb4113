package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// drive sends the crowd's requests from one thread until its time is over, and waits for their answers.
func (c *crowd) drive() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer disconnect(poll)
	c.begin = time.Now()
	c.next = c.begin
	end, buffer, events := c.begin.Add(c.warm+c.measure), make([]byte, 64<<10), make([]unix.EpollEvent, 512)
	send := func(conn *crowdConn, due time.Time) error {
		c.waiting++
		return writeAll(conn.fd, c.request(conn, due))
	}
	connectOne := func() (*crowdConn, error) {
		conn := &crowdConn{fd: connect(c.g.addr)}
		c.conns = append(c.conns, conn)
		return conn, unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, conn.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(c.conns) - 1)})
	}
	for range c.clients {
		conn, err := connectOne()
		if err == nil {
			err = send(conn, time.Now())
		}
		if err != nil {
			return err
		}
	}
	for last := c.begin; c.waiting > 0 || c.rate > 0 && time.Now().Before(end); {
		now := time.Now()
		for c.rate > 0 && c.next.Before(now) && c.next.Before(end) {
			due := c.next
			c.next = c.next.Add(time.Duration(c.random.ExpFloat64() / c.rate * float64(time.Second)))
			var conn *crowdConn
			if n := len(c.idle); n > 0 {
				conn, c.idle = c.idle[n-1], c.idle[:n-1]
			} else if len(c.conns) == shedMost {
				c.failed["no connection"]++
				continue
			} else if conn, err = connectOne(); err != nil {
				return err
			}
			if c.late = append(c.late, time.Since(due)); due.Sub(c.begin) < c.warm {
				c.late = c.late[:0]
			}
			if err = send(conn, due); err != nil {
				return err
			}
		}
		timeout := 1
		if c.rate == 0 {
			timeout = 100
		}
		ready, err := unix.EpollWait(poll, events, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		now = time.Now()
		if ready > 0 {
			last = now
		} else if now.Sub(last) > 10*time.Second {
			return fmt.Errorf("shed: no answer within 10 s to %d requests", c.waiting)
		}
		for _, event := range events[:ready] {
			conn := c.conns[event.Fd]
			if conn.in, err = readSome(conn.fd, buffer, conn.in); err != nil {
				return fmt.Errorf("shed: %w", err)
			}
			complete, err := c.received(conn, now)
			if err != nil {
				return err
			}
			if !complete {
				continue
			}
			switch c.waiting--; {
			case c.rate > 0:
				c.idle = append(c.idle, conn)
			case now.Before(end):
				if err = send(conn, now); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
