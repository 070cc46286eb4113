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
