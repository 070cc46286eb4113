package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	warmFor    = 500 * time.Millisecond // at the begin of every measurement: not counted
	measureFor = 2 * time.Second
)

// errRefused is an answer that asks for the same again later: the machine has too much to do. It is not counted as done, and no fault.
var errRefused = errors.New("refused for now")

// drive has clients work side by side while more says so, nil for as long as a measurement takes, and returns how much was done a
// second once they were warm. The first error but errRefused ends the program.
func drive(ctx context.Context, clients int, more func() bool, work func(client int) error) float64 {
	var done, refused atomic.Int64
	begin := time.Now()
	if more == nil {
		more = func() bool { return time.Since(begin) < warmFor+measureFor }
	}
	g, ctx := errgroup.WithContext(ctx)
	for client := range clients {
		g.Go(func() error {
			for ctx.Err() == nil && more() {
				switch err := work(client); {
				case errors.Is(err, errRefused):
					refused.Add(1)
				case err != nil:
					return err
				case time.Since(begin) > warmFor:
					done.Add(1)
				}
			}
			return ctx.Err()
		})
	}
	must(g.Wait())
	if n := refused.Load(); n > 0 {
		sayf("%d refused for now: the machine has too much to do, this round says little", n)
	}
	return float64(done.Load()) / (time.Since(begin) - warmFor).Seconds()
}

func overHTTP(ctx context.Context, addr string, clients int, more func() bool, work func(client int, w *wire) error) float64 {
	wires := make([]*wire, clients)
	for i := range wires {
		wires[i] = dial(addr)
		defer func() { _ = wires[i].Close() }()
	}
	return drive(ctx, clients, more, func(client int) error { return work(client, wires[client]) })
}

// wire is one HTTP/1.1 connection that spends next to no CPU: the client shares the cores with the server.
type wire struct {
	net.Conn
	in         *bufio.Reader
	head, body []byte // of the last answer
}

func dial(addr string) *wire {
	conn := try(net.Dial("tcp", addr))
	return &wire{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
}

// do sends a request and reads its answer, which must tell its length.
func (w *wire) do(request []byte) error {
	if _, err := w.Write(request); err != nil {
		return err
	}
	for w.head = w.head[:0]; !bytes.HasSuffix(w.head, []byte("\r\n\r\n")); {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		w.head = append(w.head, line...)
	}
	n, err := strconv.Atoi(string(w.header("Content-Length")))
	if err != nil && !w.hasStatus("304") {
		return fmt.Errorf("the length of an answer: %w", err)
	}
	w.body = append(w.body[:0], make([]byte, n)...)
	_, err = io.ReadFull(w.in, w.body)
	return err
}

// retryable tells whether the last answer asks for the same again later.
func (w *wire) retryable() bool { return isRetryable(w.body) }

func isRetryable(answer []byte) bool { return bytes.Contains(answer, []byte(`"retryable":true`)) }

// header is the value of a header of the last answer, by its name as net/http writes it.
func (w *wire) header(name string) []byte {
	for line := range bytes.SplitSeq(w.head, []byte("\r\n")) {
		if len(line) > len(name) && line[len(name)] == ':' && string(line[:len(name)]) == name {
			return line[len(name)+2:]
		}
	}
	return nil
}

func (w *wire) hasStatus(status string) bool {
	return bytes.HasPrefix(w.head, []byte("HTTP/1.1 "+status))
}
