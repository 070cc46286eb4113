package psp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// journal is the ledger's file: append-only, an entry a line in JSON, in the order of sequences.
type journal struct {
	file   *os.File
	broken chan struct{} // closed after a write failed

	mu      sync.Mutex // held while writing, and taken before Simulator.mu
	written int64      // sequence of the last entry on disk
	err     error      // of the write that failed
}

// lockWait bounds the wait for the lock of a process that is ending.
const lockWait = time.Second

// load locks the file for this process, applies every whole line, and truncates a last line without an end.
func (s *Simulator) load() error {
	file := s.journal.file
	for end, tick := time.Now().Add(lockWait), time.Tick(20*time.Millisecond); ; <-tick {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("in use: %w", err)
		}
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	whole := content[:bytes.LastIndexByte(content, '\n')+1]
	for line := range bytes.Lines(whole) {
		r, number := &record{}, s.journal.written+1
		if err = json.Unmarshal(line, r); err == nil && r.Sequence != number {
			err = fmt.Errorf("sequence %d", r.Sequence)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		s.apply(r)
		s.journal.written = number
	}
	return errors.Join(file.Truncate(int64(len(whole))), file.Sync())
}

// sync returns nil once all entries up to a sequence are on disk. Of the requests that wait, one writes all entries that there are and
// calls fsync once; then it adds their callbacks. After an error they may be on disk or not, and nothing more is written: the file may
// end in half a line.
func (s *Simulator) sync(sequence int64) error {
	j := s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.written >= sequence {
		return nil
	}
	if j.err != nil {
		return j.err
	}
	s.mu.Lock()
	entries := s.ledger[j.written:]
	s.mu.Unlock()
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, r := range entries {
		j.err = errors.Join(j.err, encoder.Encode(r))
	}
	if j.err == nil {
		_, err := j.file.Write(lines.Bytes())
		j.err = errors.Join(err, j.file.Sync())
	}
	if j.err != nil {
		close(j.broken)
		return j.err
	}
	j.written += int64(len(entries))
	for _, r := range entries {
		s.callbacks.add(r)
	}
	return nil
}
