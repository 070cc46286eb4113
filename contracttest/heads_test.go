package contracttest

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// changing answers a list that somebody else changes with each request, so many times. lie may change an answer on its way.
func changing(times int32, lie func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		state := min(n.Add(1), times)
		tag := fmt.Sprintf(`"%d-0123456789abcdef"`, state)
		w.Header().Set("ETag", tag)
		lie(w, r)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, `{"data":[{"id":"%d"}],"next_cursor":null}`, state)
	}
}

func honest(http.ResponseWriter, *http.Request) {}

// TestOthersMayChangeWhatIsRead: what somebody else changes between two requests is no finding, a lie is one at once, and what never stays as it is
// was not seen.
func TestOthersMayChangeWhatIsRead(t *testing.T) {
	t.Parallel()
	heads := func(s *suite) { s.compareHead(t.Context(), call{op: "listOrders"}) }
	matching := func(s *suite) {
		c := call{op: "listOrders"}
		r, _ := s.send(t.Context(), c)
		s.unchanged(t.Context(), c, r)
		if err := s.notModified(t.Context(), c, r.header.Get("ETag")); err != nil {
			s.skipf("%v", err)
		}
	}
	forgetful := func(_ http.ResponseWriter, r *http.Request) { r.Header.Del("If-None-Match") }
	otherHead := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.Header().Set("ETag", `"head"`)
		}
	}
	for name, tt := range map[string]struct {
		ask           func(*suite)
		answer        http.HandlerFunc
		found, lacked string
	}{
		"HEAD, while it changes":            {heads, changing(4, honest), "", ""},
		"HEAD that lies":                    {heads, changing(4, otherHead), "of HEAD is", ""},
		"HEAD of what changes all the time": {heads, changing(1<<30, honest), "", "could not be compared"},
		"304, while it changes":             {matching, changing(6, honest), "", ""},
		"304 that never comes":              {matching, changing(1, forgetful), "is 200 and not 304", "200 in place of 304"},
		"304 of what changes all the time":  {matching, changing(1<<30, honest), "", "200 in place of 304"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := addressed(t, Options{Patience: 300 * time.Millisecond}, tt.answer)
			tt.ask(s)
			var found []string
			for line := range strings.Lines(messages(s)) {
				if strings.Contains(line, "of HEAD") || strings.Contains(line, "304") {
					found = append(found, line)
				}
			}
			if (len(found) > 0) != (tt.found != "") || !strings.Contains(strings.Join(found, ""), tt.found) {
				t.Errorf("found %q", found)
			}
			if (s.lacking == "") != (tt.lacked == "") || !strings.Contains(s.lacking, tt.lacked) {
				t.Errorf("lacks %q", s.lacking)
			}
		})
	}
}

// TestTheCatalogueMayChange between the page that a run has read and those that it reads one by one.
func TestTheCatalogueMayChange(t *testing.T) {
	t.Parallel()
	list := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"data":[{"sku":"a"},{"sku":"b"}],"next_cursor":null}`)
	}
	s := addressed(t, Options{}, list)
	s.walkInto(t.Context(), "listProducts", values("limit", "2"), []string{"b", "c"})
	if got := messages(s); strings.Contains(got, "page by page") || s.lacking != "" {
		t.Error(got, s.lacking)
	}
	s = addressed(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("limit") == "2" {
			_, _ = fmt.Fprint(w, `{"data":[{"sku":"b"},{"sku":"a"}],"next_cursor":null}`)
			return
		}
		list(w, r)
	})
	s.walkInto(t.Context(), "listProducts", values("limit", "2"), []string{"a", "b"})
	if got := messages(s); !strings.Contains(got, "page by page it begins with [b a] and not [a b]") {
		t.Error(got)
	}
}
