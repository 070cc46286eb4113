package edge

import (
	"math/rand/v2"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/munnerz/goautoneg"
	"golang.org/x/text/language"

	"github.com/ordergate/ordergate/gen/api"
)

// TestShortWaysHaveTheVerdictOfTheLongOnes: headers that are recognized by hand, beside the libraries and expressions that define them.
func TestShortWaysHaveTheVerdictOfTheLongOnes(t *testing.T) {
	t.Parallel()
	o := &operation{Operation: api.Operation[*request, response]{MediaType: "application/json", Produces: []string{"application/json", "application/problem+json"}}}
	key, idempotency, id := regexp.MustCompile(`^og_(test|live)_[A-Za-z0-9_-]{16,128}$`), regexp.MustCompile(`^("[!#-~]{8,255}"|[!#-~]{8,255})$`), regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	n := strings.Repeat
	for name, c := range map[string]struct {
		seeds       []string
		hand, wants func(string) bool
	}{
		"key": {
			[]string{testKey, "og_live_" + n("a", 128), "og_test_" + n("-", 16), "og_test_" + n("a", 129), "og_test_" + n("a", 15), "og_tent_" + n("a", 20), "og_test_" + n("a", 16) + "\n", ""},
			keyShaped, key.MatchString,
		},
		"idempotency key": {
			[]string{n("k", 7), n("k", 8), n("k", 255), n("k", 256), `"` + n("k", 8) + `"`, `"` + n("k", 255) + `"`, `"` + n("k", 256) + `"`, `""` + n("k", 8) + `""`, `"`, n("é", 8)},
			func(s string) bool { _, err := idempotencyKey(s); return err == nil }, idempotency.MatchString,
		},
		"trace id": {[]string{"checkout-1", n("a", 64), n("a", 65), "a b", "é", "a\n"}, func(s string) bool {
			return givenTraceID(t.Context(), http.Header{"X-Trace-Id": {s}}) == s && s != ""
		}, id.MatchString},
		"Accept": {
			[]string{"application/json", "application/problem+json", "application/*", "*/*", "text/html, application/json;q=0.1", "application/json;q=0", "Application/JSON", "application/yaml", "json"},
			o.canProduce, func(accept string) bool {
				return slices.ContainsFunc(goautoneg.ParseAccept(strings.ToLower(accept)), func(a goautoneg.Accept) bool {
					return a.Q > 0 && (a.Type == "*" || a.Type == "application") && slices.Contains([]string{"*", "json", "problem+json"}, a.SubType)
				})
			},
		},
		"Content-Type": {
			[]string{"application/json", "Application/JSON; Charset=UTF-8", "application/json;", "application/json; charset=utf-16", "application/json; x=y; x=z", "text/plain", " application/json", ""},
			func(s string) bool { return o.takes(http.Header{"Content-Type": {s}}) }, func(s string) bool {
				mediaType, params, err := mime.ParseMediaType(s)
				return err == nil && mediaType == "application/json" && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
			},
		},
		"Accept-Language": {
			[]string{"en", "en-US,en;q=0.9", "en, zh;q=0.1", "zh-CN", "en;q=0.5, zh-CN", "de, zh-CN;q=0.5", "en-CN", "en-Hans", "enzh", "en;q=0", "nonsense;;;", "en ,zh", "EN", "*", "yue", n("en,", 90)},
			func(s string) bool { return chinese(http.Header{"Accept-Language": {s}}) }, func(s string) bool {
				if s == "" || len(s) > 256 {
					return false
				}
				_, i := language.MatchStrings(language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese}), s)
				return i == 1
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			r := rand.New(rand.NewPCG(seed, 0))
			scraps := append([]string{"", " ", ",", ";", "=", "\"", "-", "_", "/", "*", "\n", "\x00", "é", "\xff", "a", "Z", "0", "q=0", ";q=0.5"}, c.seeds...)
			agreed := map[bool]int{}
			for i := range 5000 {
				s := c.seeds[i%len(c.seeds)]
				for i > len(c.seeds) && r.IntN(3) > 0 {
					from := r.IntN(len(s) + 1)
					s = s[:from] + scraps[r.IntN(len(scraps))] + s[min(len(s), from+r.IntN(3)):]
				}
				got, want := c.hand(s), c.wants(s)
				if got != want {
					t.Fatalf("seed %d: %q: %v", seed, s, got)
				}
				agreed[got]++
			}
			if len(agreed) < 2 {
				t.Errorf("one verdict for all: %v", agreed)
			}
		})
	}
}

func get(path string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}
