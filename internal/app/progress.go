package app

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress says how far a long run is.
type progress struct {
	name       string // of the part that is done now
	number, of int    // the part, from 1, and how many there are
	done       int64  // of the part
	expected   int64  // done at its end; 0: it is not known
}

// progressBar shows, on a terminal, how far a run of more than a second is. end removes the bar. Elsewhere show is nil.
func progressBar(out io.Writer) (show func(progress), end func()) {
	file, ok := out.(*os.File)
	if !ok {
		return nil, func() {}
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil, func() {}
	}
	const clearLine = "\r\x1b[K"
	shown, next := false, time.Now().Add(time.Second)
	return func(p progress) {
			if now := time.Now(); now.After(next) {
				shown, next = true, now.Add(100*time.Millisecond)
				fmt.Fprint(file, clearLine, bar(p))
			}
		}, func() {
			if shown {
				fmt.Fprint(file, clearLine)
			}
		}
}

// bar is the line of a progress: the parts that are done, and how far the present one is if that is known.
func bar(p progress) string {
	const width = 30
	part := 0.0
	text := fmt.Sprintf("%d of %d %s: %d", p.number, p.of, p.name, p.done)
	if p.expected > 0 {
		part = min(1, float64(p.done)/float64(p.expected))
		text = fmt.Sprintf("%s of %d", text, max(p.done, p.expected))
	}
	full := int(width * (float64(p.number-1) + part) / float64(p.of))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text
}
