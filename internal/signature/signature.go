// Package signature signs and verifies the payment provider's callbacks, as openapi/psp.yaml says. Sender and receiver share it, so that
// they cannot differ.
package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Header is the name of the header that has the signature.
const Header = "Provider-Signature"

var (
	errSecret    = errors.New("signature: the secret is empty")
	errMalformed = errors.New("signature: the header has not one t in Unix seconds and a v1 in hex")
	errWrong     = errors.New("signature: no v1 fits the secret and the body")
)

// seconds is the form of t. Its length keeps it within what time.Time holds.
var seconds = regexp.MustCompile(`^[0-9]{1,12}$`)

// Sign returns the header's value for a body that is sent now: "t=<Unix seconds>,v1=<hex>". With an empty secret anyone could sign, so
// Verify refuses that; callers check it at their start.
func Sign(secret string, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(secret, t, body))
}

// Verify returns nil if the header's value has a signature of these bytes under the secret, and its time is at most tolerance before or
// after now. Hex may have capital letters. Of several v1, as during a change of the secret, one must fit; other names are ignored. It
// compares in constant time, and the error tells neither the secret nor a signature.
func Verify(secret, header string, body []byte, now time.Time, tolerance time.Duration) error {
	if secret == "" {
		return errSecret
	}
	t, signatures, err := parse(header)
	if err != nil {
		return err
	}
	sent, _ := strconv.ParseInt(t, 10, 64) // seconds has matched it
	if age := now.Sub(time.Unix(sent, 0)); age.Abs() > tolerance {
		return fmt.Errorf("signature: its time is %v off", age.Round(time.Second))
	}
	want, fits := mac(secret, t, body), false
	for _, signature := range signatures {
		fits = hmac.Equal(signature, want) || fits
	}
	if !fits {
		return errWrong
	}
	return nil
}

// parse returns the digits of t and the bytes of each v1, of which there is at least one.
func parse(header string) (t string, signatures [][]byte, _ error) {
	for part := range strings.SplitSeq(header, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case !found, name == "t" && (t != "" || !seconds.MatchString(value)):
			return "", nil, errMalformed
		case name == "t":
			t = value
		case name == "v1":
			signature, err := hex.DecodeString(value)
			if err != nil || len(signature) != sha256.Size {
				return "", nil, errMalformed
			}
			signatures = append(signatures, signature)
		}
	}
	if t == "" || signatures == nil {
		return "", nil, errMalformed
	}
	return t, signatures, nil
}

// mac signs the digits of t, a full stop and the body.
func mac(secret, t string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(secret))
	_, _ = h.Write([]byte(t + ".")) // a hash never fails
	_, _ = h.Write(body)
	return h.Sum(nil)
}
