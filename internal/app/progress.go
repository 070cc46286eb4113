package app

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progressLine shows, on a terminal, the present line of a run of more than a second, ten times a second at most. end removes it.
func progressLine(out io.Writer) (show func(line func() string), end func()) {
	if !isTerminal(out) {
		return func(func() string) {}, func() {}
	}
	const clearLine = "\r\x1b[K"
	shown, next := false, time.Now().Add(time.Second)
	return func(line func() string) {
			if now := time.Now(); now.After(next) {
				shown, next = true, now.Add(100*time.Millisecond)
				fmt.Fprint(out, clearLine, line())
			}
		}, func() {
			if shown {
				fmt.Fprint(out, clearLine)
			}
		}
}

// progressOf draws a share of 0 to 1.
func progressOf(share float64) string {
	const width = 30
	full := int(width * min(1, share))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] "
}

// progress says how far a long run of several parts is.
type progress struct {
	name       string // of the part that is done now
	number, of int    // the part, from 1, and how many there are
	done       int64  // of the part
	expected   int64  // done at its end; 0: it is not known
}

// progressBar shows, on a terminal, how far a run of more than a second is. end removes the bar. Elsewhere show is nil.
func progressBar(out io.Writer) (show func(progress), end func()) {
	if !isTerminal(out) {
		return nil, func() {} // what is expected need not be counted
	}
	line, end := progressLine(out)
	return func(p progress) { line(func() string { return bar(p) }) }, end
}

// bar is the line of a progress: the parts that are done, and how far the present one is if that is known.
func bar(p progress) string {
	part := 0.0
	text := fmt.Sprintf("%d of %d %s: %d", p.number, p.of, p.name, p.done)
	if p.expected > 0 {
		part = min(1, float64(p.done)/float64(p.expected))
		text = fmt.Sprintf("%s of %d", text, max(p.done, p.expected))
	}
	return progressOf((float64(p.number-1)+part)/float64(p.of)) + text
}
