package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
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
	var failed atomic.Pointer[error]
	var g sync.WaitGroup
	begin := time.Now()
	if more == nil {
		more = func() bool { return time.Since(begin) < warmFor+measureFor }
	}
	for client := range clients {
		g.Go(func() {
			for failed.Load() == nil && ctx.Err() == nil && more() {
				if err := work(client); errors.Is(err, errRefused) {
					refused.Add(1)
				} else if err != nil {
					failed.CompareAndSwap(nil, &err)
				} else if time.Since(begin) > warmFor {
					done.Add(1)
				}
			}
		})
	}
	g.Wait()
	if err := failed.Load(); err != nil {
		must(*err)
	}
	must(ctx.Err())
	if n := refused.Load(); n > 0 {
		say("%d refused for now: the machine has too much to do, this round says little", n)
	}
	return float64(done.Load()) / (time.Since(begin) - warmFor).Seconds()
}

// overHTTP drives clients with a connection each.
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
	in *bufio.Reader
	// Of the last answer:
	status string
	lru    bool // it came from there
	body   []byte
}

func dial(addr string) *wire {
	conn := try(net.Dial("tcp", addr)) //nolint:noctx // on this machine
	return &wire{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
}

var lengthIs = []byte("Content-Length: ")

// do sends a request and reads its answer.
func (w *wire) do(request []byte) (err error) {
	if _, err = w.Write(request); err != nil {
		return err
	}
	length := -1
	w.status, w.lru = "", false
	for {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if w.status == "" {
			w.status = string(line[len("HTTP/1.1 "):])
		} else if value, is := bytes.CutPrefix(line, lengthIs); is {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
		w.lru = w.lru || string(line) == "X-Served-By: lru"
	}
	if length < 0 {
		return errors.New("an answer does not tell its length")
	}
	w.body = append(w.body[:0], make([]byte, length)...)
	_, err = io.ReadFull(w.in, w.body)
	return err
}
