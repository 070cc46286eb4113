package contracttest

import (
	"fmt"
	"time"
)

// endf ends the run: what follows would say nothing new. The caller holds the lock.
func (s *suite) endf(format string, args ...any) {
	if !s.dead {
		s.dead, s.reason = true, fmt.Sprintf(format, args...)
	}
	if s.stop != nil {
		s.stop()
	}
}

// maxWaitsInVain is how many requests in turn are given up before the run ends, each after the suite's patience or that of its client.
const maxWaitsInVain = 3

// waitedInVain counts requests in turn that got no answer, or were told to wait for longer than the suite's patience. It is true if the run
// ends with this one. Then it forgets what was found since the first of them: it is all the same.
func (s *suite) waitedInVain(format string, args ...any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waitsInVain == 0 {
		s.foundBefore = len(s.findings)
	}
	if s.waitsInVain++; s.waitsInVain >= maxWaitsInVain && !s.dead {
		s.endf(format, args...)
		s.findings = s.findings[:s.foundBefore]
	}
	return s.dead
}

// answered notes that the address answers.
func (s *suite) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitsInVain, s.lastAnswer = 0, time.Now()
}
