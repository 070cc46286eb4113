package failpoint

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestActions: a point acts as it is armed, at the hit that is named or at each; others do nothing.
func TestActions(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string // what three hits of relay.published do, in order
	}{
		"kill":                     {"relay.published=kill", "kill kill kill"},
		"the second hit":           {"relay.published=kill@2", "- kill -"},
		"panic":                    {"relay.published=panic@3", "- - panic"},
		"sleep":                    {"relay.published=sleep:20ms@1", "sleep - -"},
		"another point":            {"relay.committed=kill", "- - -"},
		"several":                  {" relay.committed=panic , relay.published=kill@1,", "kill - -"},
		"nothing":                  {"", "- - -"},
		"a later hit than happens": {"relay.published=panic@4", "- - -"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			var did []string
			for range 3 {
				did = append(did, hit(s, RelayPublished))
			}
			if got := strings.Join(did, " "); got != c.want {
				t.Errorf("%s: %s, not %s", c.text, got, c.want)
			}
		})
	}
}

// hit returns what a hit of the point did.
func hit(s failures, p Point) (did string) {
	did = "-"
	begin := time.Now()
	defer func() {
		if recover() != nil {
			did = "panic"
		} else if time.Since(begin) > 19*time.Millisecond {
			did = "sleep"
		}
	}()
	s.fail(p, func(Point) { did = "kill" })
	return did
}

// TestRefusedTexts: what cannot be parsed is refused, and an unknown name lists all.
func TestRefusedTexts(t *testing.T) {
	for text, want := range map[string]string{
		"relay.publishd=kill":                           `no failpoint "relay.publishd", there are command.keys-resolved, `,
		"relay.published":                               "cannot parse",
		"relay.published=":                              "cannot parse",
		"relay.published=kil":                           "cannot parse",
		"relay.published=kill:1s":                       "cannot parse",
		"relay.published=kill@0":                        "cannot parse",
		"relay.published=kill@":                         "cannot parse",
		"relay.published=kill@x":                        "cannot parse",
		"relay.published=sleep":                         "cannot parse",
		"relay.published=sleep:-1s":                     "cannot parse",
		"relay.published=sleep:5":                       "cannot parse",
		"clock=5":                                       "cannot parse",
		"clock":                                         "cannot parse",
		"relay.published=kill,relay.published=kill@2":   "twice",
		"relay.published=kill@1,relay.published2=panic": `no failpoint "relay.published2"`,
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %s", text, err, want)
		}
	}
	_, err := parse("x=kill")
	for _, p := range All {
		if err == nil || !strings.Contains(err.Error(), string(p)) {
			t.Errorf("%v does not list %s", err, p)
		}
	}
}

// TestClock: its offset may have either sign, and stands beside points.
func TestClock(t *testing.T) {
	s, err := parse("relay.committed=kill,clock=-1h30m")
	if err != nil || s[clock].delay != -90*time.Minute || s[RelayCommitted] == nil {
		t.Errorf("%v, %v", s, err)
	}
	if err = Arm("clock=1h"); !errors.Is(err, ErrNotBuilt) {
		t.Error(err)
	}
}

// TestHitIsNothing: without the tag nothing can be armed, and the compiler has nothing to do for a point.
func TestHitIsNothing(t *testing.T) {
	if err := Arm(""); err != nil {
		t.Error(err)
	}
	if err := Arm("relay.published=kill"); !errors.Is(err, ErrNotBuilt) {
		t.Error(err)
	}
	Hit(RelayPublished)
	out, err := exec.Command("go", "build", "-gcflags=-m=2", ".").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "can inline Hit with cost 0 ") {
		t.Errorf("%v\n%s", err, out)
	}
}
