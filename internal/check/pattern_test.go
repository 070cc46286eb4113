package check

import (
	"regexp"
	"strings"
	"testing"
)

// sequences are matched by a loop: those of the contract, and what a loop could get wrong. others are left to regexp.
var (
	sequences = []string{
		`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`, `^[A-Z]{3}$`, `^https?://[!-~]+$`, `^[A-Z]{2,5}_[0-9]{3}$`, `^ord_[0-9a-f]{32}$`, `^[!-~]*$`,
		`^$`, `^a$`, `^a?b$`, `^a{2,}b*c$`, `^\d+\.\d{1,2}$`, `^\x00\n$`, `^[a-c]{2}[b-d]{0,2}$`, `^[^\x00-!"-\x{10ffff}]$`,
	}
	others = []string{
		``, `a`, `^a`, `a$`, `^.$`, `^[^a]$`, `^é$`, `^(?i)a$`, `^(?i:k)$`, `^(a|bc)$`, `^(ab)+$`, `^a{0,2}a$`, `^a*b?a$`, `(?m)^a$`, `^a\b$`, `^a*?$|b`, `^[[:^ascii:]]$`,
		`^(|0|[1-9][0-9]{0,15})$`, `^(|\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$`,
	}
)

func TestSequencesAreMatchedByALoop(t *testing.T) {
	for _, pattern := range sequences {
		if MustPattern(pattern).slow != nil {
			t.Errorf("%s is left to regexp", pattern)
		}
	}
	for _, pattern := range others {
		if MustPattern(pattern).slow == nil {
			t.Errorf("%s is taken for a sequence", pattern)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, pattern := range append(sequences, others...) {
		for _, text := range []string{"", "a", "ab", "aab", "aaa", "bcd", "EUR", "PAY_003", "1.25", "http://x", "https://é", "LAMP-0001", ".a", "a\n", "\x00\n", "K", "\xff", strings.Repeat("a", 65)} {
			f.Add(pattern, text)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		r, err := regexp.Compile(pattern)
		if err != nil {
			return
		}
		if p := MustPattern(pattern); p.Match(text) != r.MatchString(text) {
			t.Errorf("%q matches %q: %v, with a loop: %v", pattern, text, p.Match(text), p.slow == nil)
		}
	})
}
