package psp

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Faults is how often the simulator fails by itself. The zero value never does. Whether a fault strikes depends on the seed and the
// operation's key alone, so that a run with the same keys has the same faults, and all requests under a key the same one.
type Faults struct {
	// Shares of the keys with the token pm_ok that behave as if the token were another. Their sum is at most 1.
	Timeout float64 // pm_timeout_charged
	Error   float64 // pm_flaky
	Double  float64 // pm_duplicate
	Late    float64 // pm_late

	CallbackLost   float64       // share of the callbacks that are never sent
	CallbackDouble float64       // share of the callbacks that are sent twice, of those that are sent
	CallbackDelay  time.Duration // each callback is sent after a part of this, so that they change their order
	Seed           uint64
}

// faultNames are the names that ParseFaults knows, in the order in which they are listed.
const faultNames = "timeout, error, double, late, callback-lost, callback-double, callback-delay"

// maxDelay bounds CallbackDelay.
const maxDelay = time.Hour

// ParseFaults reads a list such as "timeout=0.2,callback-lost=0.1,callback-delay=2s". Nothing else fails; an empty text names
// nothing. The error says what is wrong with which entry.
func ParseFaults(text string) (Faults, error) {
	var f Faults
	shares := map[string]*float64{
		"timeout": &f.Timeout, "error": &f.Error, "double": &f.Double, "late": &f.Late, "callback-lost": &f.CallbackLost, "callback-double": &f.CallbackDouble,
	}
	if text == "" {
		return f, nil
	}
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(entry, "=")
		share := shares[name]
		var err error
		switch {
		case share == nil && name != "callback-delay":
			return Faults{}, fmt.Errorf("there is no fault %q; there are %s", name, faultNames)
		case seen[name]:
			return Faults{}, fmt.Errorf("%s is named twice", name)
		case share == nil:
			f.CallbackDelay, err = time.ParseDuration(value)
			if err != nil || f.CallbackDelay < 0 || f.CallbackDelay > maxDelay {
				return Faults{}, fmt.Errorf("%s=%q: a duration from 0s to %v is needed", name, value, maxDelay)
			}
		default:
			*share, err = strconv.ParseFloat(value, 64)
			if err != nil || !(*share >= 0 && *share <= 1) { // NaN is neither
				return Faults{}, fmt.Errorf("%s=%q: a share from 0 to 1 is needed", name, value)
			}
		}
		seen[name] = true
	}
	if f.Timeout+f.Error+f.Double+f.Late > 1+1e-9 { // 0.7+0.2+0.1 is not exactly 1
		return Faults{}, errors.New("timeout, error, double and late are more than 1 together")
	}
	return f, nil
}

// token returns the token that the simulator acts on in place of the one that was sent.
func (f Faults) token(key, token string) string {
	if token != "pm_ok" {
		return token
	}
	u := f.draw("request", key)
	for _, fault := range []struct {
		share float64
		token string
	}{{f.Timeout, "pm_timeout_charged"}, {f.Error, "pm_flaky"}, {f.Double, "pm_duplicate"}, {f.Late, "pm_late"}} {
		if u < fault.share {
			return fault.token
		}
		u -= fault.share
	}
	return token
}

// delays returns how long each callback about a key is held back: none if it is lost, two if it is doubled.
func (f Faults) delays(key string) []time.Duration {
	delay := func(of string) time.Duration { return time.Duration(f.draw(of, key) * float64(f.CallbackDelay)) }
	switch {
	case f.draw("lost", key) < f.CallbackLost:
		return nil
	case f.draw("double", key) < f.CallbackDouble:
		return []time.Duration{delay("delay"), delay("second delay")}
	}
	return []time.Duration{delay("delay")}
}

// draw returns a number from 0 to below 1, the same for the same seed, purpose and key.
func (f Faults) draw(purpose, key string) float64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%s/%s", f.Seed, purpose, key))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}
