package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	secret    = "0123456789abcdef"
	tolerance = 5 * time.Minute
)

var (
	now  = time.Unix(1772366400, 999_999_999)
	body = []byte(`{"id":"evt_1"}`)
)

// TestSignIsTheContracts: the header has the form of openapi/psp.yaml, and what is signed is "<t>." and the body.
func TestSignIsTheContracts(t *testing.T) {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "1772366400.%s", body)
	if got, want := Sign(secret, now, body), fmt.Sprintf("t=1772366400,v1=%x", h.Sum(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestVerify(t *testing.T) {
	good := Sign(secret, now, body)
	at, v1, _ := strings.Cut(good, ",")
	other := "v1=" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		secret, header string
		body           string
		after          time.Duration // from signing to verifying
		fault          string        // "" is accepted
	}{
		"as signed":                        {header: good},
		"uppercase hex":                    {header: at + ",v1=" + strings.ToUpper(v1[3:])},
		"spaces after commas":              {header: at + ", " + v1},
		"v1 before t":                      {header: v1 + "," + at},
		"several v1, the first fits":       {header: good + "," + other},
		"several v1, the last fits":        {header: at + "," + other + "," + v1},
		"other names beside":               {header: "v0=x," + good + ",v2="},
		"as late as may be":                {header: good, after: tolerance - time.Second},
		"as early as may be":               {header: good, after: -tolerance},
		"stale":                            {header: good, after: tolerance, fault: "off"}, // it was signed at the end of a second
		"future":                           {header: good, after: -tolerance - time.Second, fault: "off"},
		"far in the future":                {header: "t=999999999999," + v1, fault: "off"},
		"wrong secret":                     {secret: secret + "0", header: good, fault: "no v1 fits"},
		"empty secret":                     {secret: "-", header: Sign("", now, body), fault: "secret is empty"},
		"another body":                     {header: good, body: `{"id":"evt_2"}`, fault: "no v1 fits"},
		"the body without its last byte":   {header: good, body: `{"id":"evt_1"`, fault: "no v1 fits"},
		"another time than the signed":     {header: "t=1772366401," + v1, fault: "no v1 fits"},
		"a zero before the signed time":    {header: "t=01772366400," + v1, fault: "no v1 fits"},
		"several v1, none fits":            {header: at + "," + other + "," + other, fault: "no v1 fits"},
		"malformed: empty":                 {fault: "the header has not"},
		"malformed: no t":                  {header: v1, fault: "the header has not"},
		"malformed: no v1":                 {header: at, fault: "the header has not"},
		"malformed: another version alone": {header: at + ",v2=" + v1[3:], fault: "the header has not"},
		"malformed: two t":                 {header: at + "," + good, fault: "the header has not"},
		"malformed: signed t":              {header: "t=+1772366400," + v1, fault: "the header has not"},
		"malformed: t in words":            {header: "t=now," + v1, fault: "the header has not"},
		"malformed: t out of range":        {header: "t=" + strings.Repeat("9", 30) + "," + v1, fault: "the header has not"},
		"malformed: no hex":                {header: at + ",v1=" + strings.Repeat("g", 64), fault: "the header has not"},
		"malformed: half a signature":      {header: good[:len(good)-32], fault: "the header has not"},
		"malformed: more than a signature": {header: good + "00", fault: "the header has not"},
		"malformed: no pair":               {header: good + ",", fault: "the header has not"},
		"malformed: empty v1":              {header: at + ",v1=", fault: "the header has not"},
	} {
		t.Run(name, func(t *testing.T) {
			key, sent := secret, body
			if c.secret != "" {
				key = strings.TrimPrefix(c.secret, "-")
			}
			if c.body != "" {
				sent = []byte(c.body)
			}
			err := Verify(key, c.header, sent, now.Add(c.after), tolerance)
			if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: %v, want %q", c.header, err, c.fault)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), v1[3:])) {
				t.Errorf("the error tells what is secret: %v", err)
			}
		})
	}
}

// TestComparesInConstantTime: a time cannot be asserted, so the source is: signatures meet in hmac.Equal and nowhere else, and each is
// compared although an earlier one has fit.
func TestComparesInConstantTime(t *testing.T) {
	source, err := os.ReadFile("signature.go")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(source); strings.Count(text, "hmac.Equal(signature, want) || fits") != 1 || strings.Count(text, "Equal") != 1 ||
		strings.Contains(text, "Compare") || strings.Contains(text, "== want") || strings.Contains(text, "string(want)") {
		t.Error("signatures are compared otherwise than by hmac.Equal")
	}
}

// FuzzVerify: no header is accepted but by a signature under the secret, and none panics.
func FuzzVerify(f *testing.F) {
	f.Add(Sign("other", now, body))
	f.Add("t=1772366400,v1=")
	f.Add("t=,v1=,,=")
	right := hex.EncodeToString(mac(secret, "1772366400", body))
	f.Fuzz(func(t *testing.T, header string) {
		if Verify(secret, header, body, now, tolerance) == nil && !strings.Contains(strings.ToLower(header), right) {
			t.Errorf("%q is accepted", header)
		}
	})
}
