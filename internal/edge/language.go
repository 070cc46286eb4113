package edge

import (
	"net/http"
	"strings"

	"golang.org/x/text/language"
)

var languages = language.NewMatcher([]language.Tag{language.English, language.SimplifiedChinese})

// chinese tells whether Accept-Language prefers simplified Chinese to English.
func chinese(h http.Header) bool {
	accept := first(h, "Accept-Language")
	if accept == "" || len(accept) > 256 || english(accept) {
		return false
	}
	_, i := language.MatchStrings(languages, accept)
	return i == 1
}

// english recognizes without a matcher that no language but English is asked for: "en", "en-US,en;q=0.9".
func english(accept string) bool {
	for tag := range strings.SplitSeq(accept, ",") {
		if tag = strings.TrimSpace(tag); !strings.HasPrefix(tag, "en") || len(tag) > 2 && tag[2] != '-' && tag[2] != ';' {
			return false
		}
	}
	return true
}
