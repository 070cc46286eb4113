package token

import (
	"math"
	"testing"
)

func TestTokens(t *testing.T) {
	s := NewSigner([]byte("secret"))
	older := s.Sign(Token{Timeline: 1, LSN: 255, Key: "ord_1", Rev: 9})
	newer := s.Sign(Token{Timeline: 1, LSN: 256, Key: "ord_0", Rev: 1})
	promoted := s.Sign(Token{Timeline: 2, LSN: 10, Key: "ord_0", Rev: 1})
	if ninth, tenth := s.Sign(Token{Timeline: 1, LSN: 1, Key: "ord_1", Rev: 9}), s.Sign(Token{Timeline: 1, LSN: 1, Key: "ord_1", Rev: 10}); ninth >= tenth {
		t.Errorf("of one position the later revision is greater: %s %s", ninth, tenth)
	}
	if older >= newer || newer >= promoted {
		t.Errorf("the greatest string must be the latest: %s %s %s", older, newer, promoted)
	}
	want := Token{Timeline: 3, LSN: 1 << 40, Key: "prd_A.b-c_D", Rev: 12}
	if got, ok := s.Parse(s.Sign(want)); !ok || got != want {
		t.Errorf("read back %+v, %v", got, ok)
	}
	if got, ok := s.Parse(""); !ok || got != (Token{}) {
		t.Error("no token asks for nothing")
	}
	for _, forged := range []string{"x", "1.00000001.00000000000000ff.ord_1-9.AAAA", older + "x", "2" + older[1:], NewSigner([]byte("other")).Sign(want), "....", "1.-..-."} {
		if _, ok := s.Parse(forged); ok {
			t.Errorf("forged token %q was accepted", forged)
		}
	}
}

// Clients keep tokens, and instances of another version read them.
func TestTheFormatOfATokenStays(t *testing.T) {
	s := NewSigner([]byte("secret"))
	for want, of := range map[string]Token{
		"1.00000000.0000000000000000.-0000000000.N93KUbxPo_CCpfYP":               {},
		"1.00000003.0000010000000000.prd_A~b-c_D-0000000012.768lBaSRMECwZ6eM":    {Timeline: 3, LSN: 1 << 40, Key: "prd_A.b-c_D", Rev: 12},
		"1.ffffffff.ffffffffffffffff.ord_1-9223372036854775807.Qhjs0lVh4jA5FBVT": {Timeline: math.MaxUint32, LSN: NoPosition, Key: "ord_1", Rev: math.MaxInt64},
	} {
		if got := s.Sign(of); got != want {
			t.Errorf("%+v is %s, not %s", of, got, want)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	s := NewSigner([]byte("secret"))
	b.ReportAllocs()
	for b.Loop() {
		s.Sign(Token{Timeline: 1, LSN: 1 << 40, Key: "ord_0199b3c5a8e07a5f9e0d2c4b6a897867", Rev: 12})
	}
}
