package psp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// journal is an append-only file of JSON lines. One goroutine takes all lines that wait, writes them, calls fsync once
// and then releases all who wait for them.
type journal struct {
	file    *os.File
	wake    chan struct{} // one signal is enough for any number of lines
	stopped chan struct{}
	broken  chan struct{} // closed once a write has failed

	mu     sync.Mutex
	lines  []byte
	next   *receipt
	closed bool
}

// receipt belongs to all lines that are written together.
type receipt struct {
	written chan struct{}
	err     error
}

func newReceipt() *receipt { return &receipt{written: make(chan struct{})} }

func (r *receipt) done(err error) {
	r.err = err
	close(r.written)
}

// wait returns nil once the lines are on disk. If it returns an error they may or may not be. A nil receipt is that of
// a line that was read from the file.
func (r *receipt) wait() error {
	if r == nil {
		return nil
	}
	<-r.written
	return r.err
}

// openJournal locks the file for this process, hands every whole line to read, and cuts off a last line without an end.
func openJournal(path string, read func(line []byte) error) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := load(file, read); err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(err, file.Close()))
	}
	j := &journal{file: file, wake: make(chan struct{}, 1), stopped: make(chan struct{}), broken: make(chan struct{}), next: newReceipt()}
	go j.write()
	return j, nil
}

// lockWait is how long a ledger may still be held by a process that is ending.
const lockWait = time.Second

func load(file *os.File, read func(line []byte) error) error {
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("in use: %w", err)
		}
	}
	lines, whole := bufio.NewReader(file), int64(0)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return errors.Join(file.Truncate(whole), file.Sync())
		}
		if err == nil {
			err = read(line)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		whole += int64(len(line))
	}
}

// append takes v as the next line and returns at once. Lines are written in the order of the calls.
func (j *journal) append(v any) *receipt {
	line, err := json.Marshal(v)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		err = os.ErrClosed
	}
	if err != nil {
		failed := newReceipt()
		failed.done(err)
		return failed
	}
	j.lines = append(append(j.lines, line...), '\n')
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return j.next
}

// write ends when wake is closed. After one failure nothing more is written: the file may end in half a line.
func (j *journal) write() {
	defer close(j.stopped)
	var broken error
	for range j.wake {
		j.mu.Lock()
		lines, batch := j.lines, j.next
		j.lines, j.next = nil, newReceipt()
		j.mu.Unlock()
		if broken == nil {
			_, err := j.file.Write(lines)
			if broken = errors.Join(err, j.file.Sync()); broken != nil {
				close(j.broken)
			}
		}
		batch.done(broken)
	}
}

// close writes what waits. Calling it again changes nothing.
func (j *journal) close() error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.wake)
	}
	j.mu.Unlock()
	<-j.stopped
	if err := j.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
