//go:build contract

package contracttest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// lyingProxy stands between the suite and an address.
func lyingProxy(t *testing.T, target string, request string, tell func(*exchange)) *httptest.Server {
	t.Helper()
	matches := regexp.MustCompile("^" + request)
	transport := &http.Transport{DisableCompression: true, ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, target+r.URL.RequestURI(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		out.Header, out.ContentLength = r.Header.Clone(), r.ContentLength
		response, err := transport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		x := &exchange{Request: r.Method + " " + r.URL.RequestURI(), Status: response.StatusCode, Header: map[string]string{}, Body: string(body)}
		for name := range response.Header {
			x.Header[name] = response.Header.Get(name)
		}
		delete(x.Header, "Content-Length")
		if matches.MatchString(x.Request) {
			tell(x)
		}
		if x.Status == http.StatusNotModified && x.Body != "" { // net/http would not send it
			conn, buffer, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			var head bytes.Buffer
			for name, value := range x.Header {
				fmt.Fprintf(&head, "%s: %s\r\n", name, value)
			}
			fmt.Fprintf(buffer, "HTTP/1.1 304 Not Modified\r\n%sConnection: close\r\n\r\n%s", head.String(), x.Body)
			_ = buffer.Flush()
			return
		}
		for name, value := range x.Header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(x.Status)
		_, _ = io.WriteString(w, x.Body)
	}))
	t.Cleanup(server.Close)
	return server
}

// narrowKey is a key of `ordergate run` that lacks scopes.
func narrowKey(has string) string { return "og_test_demo_" + has + "_key_for_local_use_only" }

// TestAProxyThatLiesIsFound: each lie on its way from a running gateway is noticed by the parts that must, which find nothing when the proxy is
// honest.
func TestAProxyThatLiesIsFound(t *testing.T) {
	if *address == "" || *apiKey == "" {
		t.Fatal("it needs an address and a key: go test -tags contract ./contracttest -run TestAProxyThatLiesIsFound -args -url=http://127.0.0.1:8080 -key=og_test_...")
	}
	run := func(t *testing.T, parts []string, request string, tell func(*exchange)) *suite {
		t.Helper()
		s, err := newSuite(Options{BaseURL: lyingProxy(t, *address, request, tell).URL, Key: *apiKey, NarrowKeys: []string{narrowKey("reads"), narrowKey("writes")}, Only: parts, Patience: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.selected() {
			if p.tags == "*" && !slices.Contains(s.Only, partWord(p.name)) {
				continue // an operationId chooses the operations of the named parts
			}
			if s.run(t.Context(), p); len(s.findings) > 0 {
				break
			}
		}
		return s
	}
	var all []string
	for _, l := range proxyLies {
		all = append(all, strings.Split(l.parts, ",")...)
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(word string) bool { return word == "shipOrder" || word == "listOrders" })
	honest := run(t, all, "", func(*exchange) {})
	for _, f := range honest.findings {
		t.Errorf("without any lie: %v", f)
	}
	for _, note := range honest.notes() {
		t.Errorf("without any lie: %s", note)
	}
	for _, l := range proxyLies {
		t.Run(l.name, func(t *testing.T) {
			findings := run(t, strings.Split(l.parts, ","), l.request, l.tell()).findings
			matches := func(f Finding) bool { return regexp.MustCompile(l.finding).MatchString(f.Pointer + " " + f.Message) }
			if !slices.ContainsFunc(findings, matches) {
				t.Errorf("no finding matches %s: %v", l.finding, findings)
			}
		})
	}
}
