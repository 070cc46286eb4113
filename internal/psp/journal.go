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

// journal is an append-only file of JSON lines. One goroutine takes all waiting lines, writes them, calls fsync once and then completes
// their receipt.
type journal struct {
	file    *os.File
	wake    chan struct{} // one signal stands for any number of lines
	stopped chan struct{}
	broken  chan struct{} // closed after a write failed

	mu     sync.Mutex
	lines  []byte
	next   *receipt
	closed bool
}

// receipt tells the result of one write, for all its lines.
type receipt struct {
	written chan struct{}
	err     error
}

func newReceipt() *receipt { return &receipt{written: make(chan struct{})} }

// wait returns nil once the lines are on disk. After an error they may be on disk or not. A line that was read from the file has a nil
// receipt.
func (r *receipt) wait() error {
	if r == nil {
		return nil
	}
	<-r.written
	return r.err
}

// openJournal locks the file for this process, calls read with every whole line, and truncates a last line without an end.
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

// lockWait bounds the wait for the lock of a process that is ending.
const lockWait = time.Second

func load(file *os.File, read func(line []byte) error) error {
	for end, tick := time.Now().Add(lockWait), time.Tick(20*time.Millisecond); ; <-tick {
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

// append queues v as the next line and returns at once. Lines are written in the order of the calls.
func (j *journal) append(v any) *receipt {
	line, err := json.Marshal(v)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		err = os.ErrClosed
	}
	if err != nil {
		failed := &receipt{written: make(chan struct{}), err: err}
		close(failed.written)
		return failed
	}
	j.lines = append(append(j.lines, line...), '\n')
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return j.next
}

// write runs until wake is closed. After a failure it writes nothing more: the file may end in half a line.
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
		batch.err = broken
		close(batch.written)
	}
}

// close writes the waiting lines and closes the file. It is safe to repeat.
func (j *journal) close() error {
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		close(j.wake)
	}
	j.mu.Unlock()
	<-j.stopped
	err := j.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
