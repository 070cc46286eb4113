// Package token signs and reads consistency tokens. A token names the state of the database that a client has seen.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"sync"
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
	macs     *sync.Pool // of HMACs with the secret key
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
	return Signer{
		macs: &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}, seed: maphash.MakeSeed(),
		verified: new([remembered]atomic.Pointer[verified]),
	}
}

// place is where a token of this text is remembered.
func (s Signer) place(text string) *atomic.Pointer[verified] {
	return &s.verified[maphash.String(s.seed, text)%remembered]
}

// Sign writes "1." timeline "." LSN "." key-rev "." HMAC. Timeline and LSN are hex and the revision is decimal, of fixed width: of two
// tokens the greater string is the later one. A dot in the key is written as "~".
func (s Signer) Sign(t Token) string {
	var room [128]byte
	b := appendFixed(append(room[:0], "1."...), uint64(t.Timeline), 16, 8)
	b = appendFixed(append(b, '.'), t.LSN, 16, 16)
	b = append(b, '.')
	for i := range len(t.Key) {
		c := t.Key[i]
		if c == '.' {
			c = '~'
		}
		b = append(b, c)
	}
	b = appendFixed(append(b, '-'), uint64(t.Rev), 10, 10)
	text := string(s.appendMAC(append(b, '.'), b))
	s.place(text).Store(&verified{text, t})
	return text
}

// appendFixed appends a number, with zeros before it up to a width.
func appendFixed(b []byte, n uint64, base, width int) []byte {
	const zeros = "0000000000000000"
	var room [20]byte
	digits := strconv.AppendUint(room[:0], n, base)
	return append(append(b, zeros[:max(0, width-len(digits))]...), digits...)
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
func (s Signer) MAC(text string) string { return string(s.appendMAC(nil, []byte(text))) }

func (s Signer) appendMAC(b, text []byte) []byte {
	m, _ := s.macs.Get().(hash.Hash) // nothing else is there
	defer s.macs.Put(m)
	m.Reset()
	m.Write(text)
	var sum [sha256.Size]byte
	return base64.RawURLEncoding.AppendEncode(b, m.Sum(sum[:0])[:12])
}
