package site

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

var long = strings.Repeat("a line of the page\n", 200)

func setup(t *testing.T) (*Site, *observer.ObservedLogs) {
	t.Helper()
	logs, observed := observer.New(zap.InfoLevel)
	s, err := New(Config{
		Mounts: map[string]fs.FS{
			"/docs": tree(map[string]string{
				"index.html": "<h1>first</h1>", "404.html": "<h1>no page</h1>", "errors/index.html": "<h1>codes</h1>", "errors/PAY_003.html": "<h1>PAY_003</h1>",
				"assets/app-0123abcd.js": long, "search.json": "{}",
			}),
			"/console": tree(map[string]string{"index.html": "<h1>console</h1>"}),
		},
		Home:      "/docs",
		NotFound:  "/docs/404",
		Documents: map[string]any{"/docs/config.json": map[string]string{"api_key": "og_test_x"}},
		API:       http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "API "+r.URL.Path) }),
		Log:       zap.New(logs), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, observed
}

func tree(files map[string]string) fs.FS {
	all := fstest.MapFS{}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

func call(s *Site, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// TestABrowserIsSentHome: who opens the bare address in a browser sees the first page; a program gets the API's refusal.
func TestABrowserIsSentHome(t *testing.T) {
	s, _ := setup(t)
	const browser = "text/html,application/xhtml+xml,*/*;q=0.8"
	for _, c := range []struct {
		method, accept string
		sent           bool
	}{{"GET", browser, true}, {"HEAD", browser, true}, {"POST", browser, false}, {"GET", "*/*", false}, {"GET", "application/json", false}} {
		w := call(s, c.method, "/", "Accept", c.accept)
		if sent := w.Code == 302 && w.Header().Get("Location") == "/docs" && w.Header().Get("Vary") == "Accept"; sent != c.sent || !sent && w.Body.String() != "API /" {
			t.Errorf("%v: %d %v %s", c, w.Code, w.Header(), w.Body)
		}
	}
}

func TestPagesAreFoundByTheirPath(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for target, want := range map[string]string{
		"/docs":                      "200 <h1>first</h1>",
		"/docs?q=1":                  "200 <h1>first</h1>",
		"/docs/":                     "308 /docs",
		"/docs/?q=1":                 "308 /docs?q=1",
		"/docs/errors":               "200 <h1>codes</h1>",
		"/docs/errors/":              "308 /docs/errors",
		"/docs/errors/PAY_003":       "200 <h1>PAY_003</h1>",
		"/docs/errors/pay_003":       "308 /docs/errors/PAY_003",
		"/docs/Errors/Pay_003/?q=1":  "308 /docs/errors/PAY_003?q=1",
		"/docs/errors/pay_004":       "404 <h1>no page</h1>",
		"/docs/errors/PAY_003.html":  "404 <h1>no page</h1>",
		"/docs/search.json":          "200 {}",
		"/docs/config.json":          `200 {"api_key":"og_test_x"}` + "\n",
		"/docs/assets":               "404 <h1>no page</h1>",
		"/docs/assets/":              "404 <h1>no page</h1>",
		"/docs/404":                  "404 <h1>no page</h1>",
		"/docs/../console":           "404 <h1>no page</h1>",
		"/docs/..%2f..%2fetc/passwd": "404 <h1>no page</h1>",
		"/docs/%2e%2e/%2e%2e/go.mod": "404 <h1>no page</h1>",
		`/docs/..\..\go.mod`:         "404 <h1>no page</h1>",
		"/docs/errors/%00":           "404 <h1>no page</h1>",
		"/docs//evil.example":        "404 <h1>no page</h1>",
		"/console":                   "200 <h1>console</h1>",
		"/console/nothing":           "404 <h1>no page</h1>",
		"/v1/orders":                 "200 API /v1/orders",
		"/":                          "200 API /",
		"/docsx":                     "200 API /docsx",
		"//docs":                     "200 API //docs",
		"/v1/docs":                   "200 API /v1/docs",
		"/openapi.json":              "200 API /openapi.json",
	} {
		w := call(s, "GET", target)
		if got := fmt.Sprint(w.Code, " ", cmp.Or(w.Header().Get("Location"), w.Body.String())); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

func TestEveryPageIsProtected(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for _, target := range []string{"/docs", "/docs/", "/docs/errors/PAY_003", "/docs/assets/app-0123abcd.js", "/docs/config.json", "/docs/none", "/console", "/console/none"} {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			h := call(s, method, target).Header()
			policy := h.Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") ||
				h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%s %s: %v", method, target, h)
			}
		}
	}
}

// A page whose script writes styles is as strict with scripts as the others.
func TestAPageWithStylesOfItsScript(t *testing.T) {
	t.Parallel()
	config := Config{
		Mounts: map[string]fs.FS{"/docs": tree(map[string]string{"reference.html": "<h1>reference</h1>"})}, Styled: []string{"/docs/reference"},
		Log: zap.NewNop(), Registry: prometheus.NewRegistry(),
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	policy := call(s, "GET", "/docs/reference").Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none';", "script-src 'self';", "style-src 'self' 'unsafe-inline';", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%s is not in %s", want, policy)
		}
	}
	config.Styled, config.Registry = []string{"/docs/other"}, prometheus.NewRegistry()
	if _, err = New(config); err == nil {
		t.Error("there is no page /docs/other")
	}
}

func TestPagesAreOnlyRead(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
		if w := call(s, method, "/docs"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
	head, get := call(s, "HEAD", "/docs"), call(s, "GET", "/docs")
	if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != "14" || head.Header().Get("Etag") != get.Header().Get("Etag") {
		t.Errorf("HEAD: %d %q %v", head.Code, head.Body, head.Header())
	}
}

// TestAPageDoesNotWaitForABody: who sends a body that does not end gets the page, and the connection ends. The server here has no time-outs.
func TestAPageDoesNotWaitForABody(t *testing.T) {
	s, _ := setup(t)
	server := httptest.NewServer(s)
	defer server.Close()
	for _, request := range []string{"GET /docs HTTP/1.1", "POST /docs HTTP/1.1"} {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err = io.WriteString(c, request+"\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cur\r\n"); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(c); err != nil || !strings.Contains(string(all), "Connection: close") {
			t.Errorf("%s: %v, %q", request, err, all)
		}
	}
}

func TestPagesAreCached(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for target, want := range map[string]string{
		"/docs": "no-cache", "/docs/search.json": "no-cache", "/docs/none": "no-cache", "/docs/config.json": "no-store",
		"/docs/assets/app-0123abcd.js": "public, max-age=31536000, immutable",
	} {
		if got := call(s, "GET", target).Header().Get("Cache-Control"); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	etag := call(s, "GET", "/docs").Header().Get("Etag")
	if etag == "" || strings.HasPrefix(etag, "W/") || etag == call(s, "GET", "/docs/errors").Header().Get("Etag") {
		t.Errorf("ETag %q", etag)
	}
	if w := call(s, "GET", "/docs", "If-None-Match", `"other", `+etag); w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("Etag") != etag ||
		w.Header().Get("Cache-Control") != "no-cache" || w.Header().Get("Content-Length") != "" {
		t.Errorf("known: %d %q %v", w.Code, w.Body, w.Header())
	}
	if w := call(s, "GET", "/docs", "If-None-Match", `"other"`); w.Code != http.StatusOK {
		t.Errorf("unknown: %d", w.Code)
	}
	for _, encoding := range []string{"identity", "gzip"} {
		if w := call(s, "GET", "/docs/assets/app-0123abcd.js", "Range", "bytes=0-3", "Accept-Encoding", encoding); w.Code != http.StatusPartialContent ||
			w.Body.Len() != 4 || w.Header().Get("Content-Length") != "4" {
			t.Errorf("a range of %s: %d %q %v", encoding, w.Code, w.Body, w.Header())
		}
	}
}

func TestPagesAreCompressed(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	const script = "/docs/assets/app-0123abcd.js"
	plain := call(s, "GET", script)
	for accept, want := range map[string]bool{
		"gzip": true, "br, gzip;q=0.5": true, "*": true, "GZIP": true, "": false, "br": false, "gzip;q=0": false, "gzip; q=0.000": false, "*;q=1, gzip;q=0": false, "identity": false,
	} {
		w := call(s, "GET", script, "Accept-Encoding", accept)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != want || w.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: zipped %v, want %v; %v", accept, got, want, w.Header())
		}
		if want && w.Header().Get("Etag") == plain.Header().Get("Etag") {
			t.Errorf("%q: two bodies have one ETag", accept)
		}
	}
	w := call(s, "GET", script, "Accept-Encoding", "gzip")
	unzipped, err := gzip.NewReader(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(unzipped); err != nil || string(body) != long {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if w := call(s, "GET", script, "Accept-Encoding", "gzip", "If-None-Match", w.Header().Get("Etag")); w.Code != http.StatusNotModified {
		t.Errorf("known: %d", w.Code)
	}
}

// A page is logged once, without its address, which may hold what a user types; a request of the API is logged by the API.
func TestPagesAreLogged(t *testing.T) {
	t.Parallel()
	s, logs := setup(t)
	call(s, "GET", "/docs/none?secret=1")
	call(s, "GET", "/v1/orders")
	all := logs.All()
	if len(all) != 1 {
		t.Fatalf("%d events", len(all))
	}
	if f := all[0].ContextMap(); f["mount"] != "/docs" || f["status"] != int64(404) || f["method"] != "GET" || len(f) != 4 {
		t.Errorf("%v", f)
	}
}

func TestDocumentsBelongToAMount(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Documents: map[string]any{"/console/config.json": 1}, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	if err == nil {
		t.Error("there is no /console")
	}
}
