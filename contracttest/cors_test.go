package contracttest

import (
	"net/http"
	"strings"
	"testing"
)

// TestOriginsThatAreNotAllowed: an address that allows no origin is not covered, which is no finding. One that allows what only looks like an allowed
// origin is found.
func TestOriginsThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		allows  func(origin string) bool
		origin  string
		lacking string
		found   bool
	}{
		"none":                     {func(string) bool { return false }, "", "the address allows no page of http://localhost:3000, ", false},
		"not the one that is told": {func(o string) bool { return o == "http://localhost:3000" }, "https://shop.example", "the address allows no page of https://shop.example", false},
		"the one that is told":     {func(o string) bool { return o == "https://shop.example" }, "https://shop.example", "", false},
		"what begins like it":      {func(o string) bool { return strings.HasPrefix(o, "https://shop.example") }, "https://shop.example", "", true},
		"what ends like it":        {func(o string) bool { return strings.HasSuffix(o, "shop.example") }, "https://shop.example", "", true},
		"a page without an origin": {func(o string) bool { return o == "null" || o == "https://shop.example" }, "https://shop.example", "", true},
		"all":                      {func(o string) bool { return o != "" }, "https://shop.example", "", false},
	} {
		s := addressed(t, Options{Origin: tt.origin, Only: []string{"listErrors"}}, func(w http.ResponseWriter, r *http.Request) {
			if origin := r.Header.Get("Origin"); tt.allows(origin) {
				w.Header().Set("Access-Control-Allow-Origin", origin)
			}
			w.WriteHeader(http.StatusNotFound)
		})
		s.cors(t.Context())
		if found := strings.Contains(messages(s), "which only looks like"); found != tt.found || tt.lacking == "" != (s.lacking == "") || !strings.HasPrefix(s.lacking, tt.lacking) {
			t.Errorf("%s: found: %t, %q", name, found, s.lacking)
		}
		if s.lacking != "" && strings.Contains(messages(s), "Access-Control") {
			t.Errorf("%s: %s", name, messages(s))
		}
	}
}
