// Package failpoint makes the program fail at a chosen point. Without the build tag failpoints a point costs nothing, and no program can
// be made to fail.
package failpoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ErrNotBuilt refuses failpoints in a program that was built without them.
var ErrNotBuilt = errors.New("this program has no failpoints, build one: go build -tags failpoints")

// Arm makes points fail from now on, as text, which ORDERGATE_FAILPOINTS has, says: NAME=ACTION, comma separated. An action is kill (SIGKILL to this process), panic, or
// sleep:500ms. With @3 behind it only the third hit of the point acts, else every one. clock=-1h sets the clock back by an hour. Empty text arms
// nothing. The error is a text that cannot be parsed, an unknown name, after which all names are listed, or ErrNotBuilt.
func Arm(text string) error {
	s, err := parse(text)
	if err == nil && len(s) > 0 {
		err = arm(s)
	}
	if err != nil {
		err = fmt.Errorf("ORDERGATE_FAILPOINTS: %w", err)
	}
	return err
}

// failures are the armed points, and under clock how wrong the clock is.
type failures map[Point]*failure

const clock = "clock" // no point: nothing hits it

// failure is what one point does.
type failure struct {
	action string // kill, panic or sleep
	delay  time.Duration
	hit    int64 // the one that acts; 0: each
	hits   atomic.Int64
}

func parse(text string) (failures, error) {
	all := failures{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, action, _ := strings.Cut(item, "=")
		if name == clock {
			offset, err := time.ParseDuration(action)
			if err != nil {
				return nil, fmt.Errorf("cannot parse %q: its form is clock=-1h", item)
			}
			all[clock] = &failure{delay: offset}
			continue
		}
		if !slices.Contains(All, Point(name)) {
			names := make([]string, len(All))
			for i, p := range All {
				names[i] = string(p)
			}
			return nil, fmt.Errorf("there is no failpoint %q, there are %s", name, strings.Join(names, ", "))
		}
		f := &failure{}
		action, hit, counted := strings.Cut(action, "@")
		f.action, action, _ = strings.Cut(action, ":")
		var errHit, errDelay error
		if counted {
			f.hit, errHit = strconv.ParseInt(hit, 10, 64)
		}
		if f.action == "sleep" {
			f.delay, errDelay = time.ParseDuration(action)
		}
		known := slices.Contains([]string{"kill", "panic", "sleep"}, f.action) && (f.action == "sleep" || action == "")
		if !known || errHit != nil || counted && f.hit < 1 || errDelay != nil || f.delay < 0 {
			return nil, fmt.Errorf("cannot parse the failpoint %q: its form is %s=kill, =panic or =sleep:500ms, and @3 for the third hit alone", item, name)
		}
		if all[Point(name)] != nil {
			return nil, fmt.Errorf("the failpoint %s is given twice", name)
		}
		all[Point(name)] = f
	}
	return all, nil
}

// fail does what the point is armed with. kill does not return.
func (s failures) fail(p Point, kill func(Point)) {
	f := s[p]
	if f == nil {
		return
	}
	if n := f.hits.Add(1); f.hit != 0 && n != f.hit {
		return
	}
	switch f.action {
	case "kill":
		kill(p)
	case "panic":
		panic("failpoint " + string(p))
	case "sleep":
		<-time.After(f.delay)
	}
}
