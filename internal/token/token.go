// Package token is the consistency token: what a client has seen, in a form that only we can make.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// NoPosition stands for the position of a commit that could not be read. No replica has reached it, so the writer's client reads from the
// primary for as long as it keeps the token, which is greater than every other. No cache gives the token to other clients.
const NoPosition = math.MaxUint64

// Token says up to where a client has seen the database: a timeline and a position in its log and, after a write or of one row,
// the row's key and revision. The zero token asks for nothing.
type Token struct {
	Timeline uint32
	LSN      uint64
	Key      string // for example ord_...; never a dot
	Rev      int64
}

// Signer makes tokens and recognizes its own.
type Signer struct{ key []byte }

// NewSigner returns a Signer with the secret key that all instances share.
func NewSigner(key []byte) Signer { return Signer{key: key} }

// Sign writes "1." timeline "." LSN "." key-rev "." HMAC, the numbers in fixed-width hex, so that of two tokens the greater
// string is the later one.
func (s Signer) Sign(t Token) string {
	body := fmt.Sprintf("1.%08x.%016x.%s-%d", t.Timeline, t.LSN, strings.ReplaceAll(t.Key, ".", "~"), t.Rev)
	return body + "." + s.mac(body)
}

// Parse reads a token of ours; ok is false for any other string. The empty string is the zero token.
func (s Signer) Parse(text string) (t Token, ok bool) {
	if text == "" {
		return Token{}, true
	}
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 || !hmac.Equal([]byte(text[dot+1:]), []byte(s.mac(text[:dot]))) {
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
	return Token{Timeline: uint32(timeline), LSN: lsn, Key: strings.ReplaceAll(part[3][:dash], "~", "."), Rev: rev}, true
}

func (s Signer) mac(body string) string {
	m := hmac.New(sha256.New, s.key)
	m.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}
