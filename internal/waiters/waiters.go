// Package waiters wakes those of a process that wait for a change of something, by its key.
package waiters

import (
	"slices"
	"sync"
)

// Waiters are those that wait. The zero value has none. It is safe for concurrent use.
type Waiters[K comparable] struct {
	mu sync.Mutex
	by map[K][]chan struct{}
}

// Join returns a channel that has an element when Wake was called for the key since the channel was last empty. leave ends it and must be
// called.
func (w *Waiters[K]) Join(k K) (woken <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[K][]chan struct{}{}
	}
	w.by[k] = append(w.by[k], c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.by[k] = slices.DeleteFunc(w.by[k], func(other chan struct{}) bool { return other == c })
		if len(w.by[k]) == 0 {
			delete(w.by, k)
		}
	}
}

// Wake wakes all that wait for the key. It does not block.
func (w *Waiters[K]) Wake(k K) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.by[k] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
