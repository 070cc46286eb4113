package answers_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/ordergate/ordergate/internal/answers"
)

// TestARefusalThatBreaksOffIsNoAnswer: it is an error of the request alone, and nothing is told of it.
func TestARefusalThatBreaksOffIsNoAnswer(t *testing.T) {
	t.Parallel()
	const refusal = `{"status":404,"code":"ORD_001"}`
	for name, tt := range map[string]struct {
		length string // that is announced
		want   []answers.Answer
	}{
		"a whole refusal":     {"31", []answers.Answer{{Operation: "getOrder", Status: 404, Code: "ORD_001"}}},
		"one that breaks off": {"99", nil},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", tt.length)
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, refusal)
		}))
		var told []answers.Answer
		transport := answers.NewTransport(nil, []answers.Operation{{ID: "getOrder", Method: http.MethodGet, Path: "/v1/orders/{order_id}"}},
			func(_ *http.Request, a answers.Answer) { told = append(told, a) })
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/orders/ord_1", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(r)
		if whole := tt.want != nil; (err == nil) != whole || (response != nil) != whole || !slices.Equal(told, tt.want) {
			t.Errorf("%s: %v, %v; told was %v", name, response, err, told)
		}
		if response != nil {
			if body, err := io.ReadAll(response.Body); err != nil || string(body) != refusal {
				t.Errorf("%s: the body is %q: %v", name, body, err)
			}
			_ = response.Body.Close()
		}
		server.Close()
	}
}
