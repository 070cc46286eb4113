// Package token signs and reads consistency tokens. A token names the state of the database that a client has seen.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
)

// NoPosition is the LSN of a commit whose LSN could not be read. No replica reaches it, so a client with this token reads from the
// primary. It is the greatest LSN, so it stays the greatest token of the client; caches give it to no other client.
const NoPosition = math.MaxUint64

// Token is a timeline and an LSN that a client has seen and, if it saw one row, the key and the revision of that row. The zero Token
// demands nothing.
type Token struct {
	Timeline uint32
	LSN      uint64
	Key      string // for example ord_...
	Rev      int64
}

// Signer signs texts, and writes and reads signed tokens. Safe for concurrent use. A copy shares what the original remembers.
type Signer struct {
	key      []byte
	seed     maphash.Seed
	verified *[remembered]atomic.Pointer[verified] // by the hash of their text: a later one takes the place of an earlier one
}

// remembered is how many tokens a Signer knows to be its own without computing their signature again: a client sends the same one with each read
// for some seconds.
const remembered = 1024

// verified is a token that Sign wrote with this key.
type verified struct {
	text string
	Token
}

// NewSigner returns a Signer with a secret key, which all instances share.
func NewSigner(key []byte) Signer {
	return Signer{key: key, seed: maphash.MakeSeed(), verified: new([remembered]atomic.Pointer[verified])}
}

// place is where a token of this text is remembered.
func (s Signer) place(text string) *atomic.Pointer[verified] {
	return &s.verified[maphash.String(s.seed, text)%remembered]
}

// Sign writes "1." timeline "." LSN "." key-rev "." HMAC. Timeline and LSN are hex and the revision is decimal, of fixed width: of two
// tokens the greater string is the later one. A dot in the key is written as "~".
func (s Signer) Sign(t Token) string {
	body := fmt.Sprintf("1.%08x.%016x.%s-%010d", t.Timeline, t.LSN, strings.ReplaceAll(t.Key, ".", "~"), t.Rev)
	text := body + "." + s.MAC(body)
	s.place(text).Store(&verified{text, t})
	return text
}

// Parse reads a token that Sign wrote with the same key; ok is false for any other string. The empty string is the zero Token.
func (s Signer) Parse(text string) (t Token, ok bool) {
	if text == "" {
		return Token{}, true
	}
	place := s.place(text)
	if v := place.Load(); v != nil && v.text == text {
		return v.Token, true
	}
	text = strings.Clone(text) // what is remembered of it keeps nothing else
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 || !hmac.Equal([]byte(text[dot+1:]), []byte(s.MAC(text[:dot]))) {
		return Token{}, false
	}
	part := strings.Split(text[:dot], ".")
	if len(part) != 4 || part[0] != "1" {
		return Token{}, false
	}
	dash := strings.LastIndexByte(part[3], '-')
	if dash < 0 {
		return Token{}, false
	}
	timeline, err1 := strconv.ParseUint(part[1], 16, 32)
	lsn, err2 := strconv.ParseUint(part[2], 16, 64)
	rev, err3 := strconv.ParseInt(part[3][dash+1:], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return Token{}, false
	}
	t = Token{Timeline: uint32(timeline), LSN: lsn, Key: strings.ReplaceAll(part[3][:dash], "~", "."), Rev: rev}
	place.Store(&verified{text, t})
	return t, true
}

// MAC is the signature of a text.
func (s Signer) MAC(body string) string {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}
