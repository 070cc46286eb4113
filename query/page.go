package query

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
)

// Page is which part of a list is wanted.
type Page struct {
	Limit  int    // 1 to 100
	Cursor string // next_cursor of the page before; empty: the first
}

// cursor signs a position of a list; scope says whose list it is and how it is filtered.
func (r *Queries) cursor(scope, position string) *string {
	mac := hmac.New(sha256.New, r.cfg.CursorKey)
	mac.Write([]byte(scope + "\x00" + position))
	text := base64.RawURLEncoding.EncodeToString([]byte(position)) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
	return &text
}

// position opens a cursor of the same scope; empty for none. REQ_012 for any other.
func (r *Queries) position(scope, cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	encoded, _, _ := strings.Cut(cursor, ".")
	position, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || !hmac.Equal([]byte(*r.cursor(scope, string(position))), []byte(cursor)) {
		return "", apierr.E(errcode.REQ012)
	}
	return string(position), nil
}
