package contracttest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ordergate/ordergate/gen/api"
)

// tape is a run's requests and answers in their order. As an http.RoundTripper it records what passes; as an http.Handler it
// answers a run with the same ref in the same way.
type tape struct {
	tapeHead
	Exchanges []exchange

	next   http.RoundTripper // while it records
	mu     sync.Mutex
	played map[string]int // how many answers of an address were given
}

// tapeHead says of which run a tape is.
type tapeHead struct {
	Ref   string    `json:"ref"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
}

// exchange is one answer with what tells its request from others. The request's own trace id is written as traceMark.
type exchange struct {
	Request string            `json:"request"` // method and address
	Status  int               `json:"status"`
	Header  map[string]string `json:"header"`
	Body    string            `json:"body,omitempty"`
}

const traceMark = "{trace}"

// The published documents are not kept on a tape: it is replayed with those that the package was built with, so that it needs no
// new recording whenever a description changes.
var documents = map[string][]byte{"{openapi.json}": api.OpenAPIJSON, "{openapi.yaml}": api.OpenAPIYAML}

// RoundTrip implements http.RoundTripper.
func (t *tape) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	x := exchange{Request: r.Method + " " + r.URL.RequestURI(), Status: response.StatusCode, Header: map[string]string{}, Body: string(body)}
	for mark, document := range documents {
		if bytes.Equal(body, document) {
			x.Body = mark
		}
	}
	trace := response.Header.Get("X-Trace-Id")
	own := trace != "" && trace == r.Header.Get("X-Trace-Id")
	for name := range response.Header {
		switch value := response.Header.Get(name); {
		case name == "Date" || name == "Content-Length" || name == "Connection":
		case name == "X-Trace-Id" && own:
			x.Header[name] = traceMark
		default:
			x.Header[name] = value
		}
	}
	if own {
		x.Body = strings.ReplaceAll(x.Body, `"trace_id":"`+trace+`"`, `"trace_id":"`+traceMark+`"`)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Exchanges = append(t.Exchanges, x)
	return response, nil
}

// ServeHTTP implements http.Handler: the answers of an address come in the order in which they were recorded, the last one for
// ever.
func (t *tape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, r.Body) // else the connection is cut while the client still sends
	}
	x := t.answer(r.Method + " " + r.URL.RequestURI())
	if x == nil {
		http.Error(w, "nothing of this address is on the tape", http.StatusInternalServerError)
		return
	}
	trace := r.Header.Get("X-Trace-Id")
	for name, value := range x.Header {
		w.Header().Set(name, strings.ReplaceAll(value, traceMark, trace))
	}
	w.WriteHeader(x.Status)
	if document := documents[x.Body]; document != nil {
		_, _ = w.Write(document)
		return
	}
	_, _ = io.WriteString(w, strings.ReplaceAll(x.Body, traceMark, trace))
}

func (t *tape) answer(request string) *exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.played == nil {
		t.played = map[string]int{}
	}
	var last *exchange
	n := 0
	for i := range t.Exchanges {
		if t.Exchanges[i].Request != request {
			continue
		}
		if last = &t.Exchanges[i]; n == t.played[request] {
			break
		}
		n++
	}
	t.played[request]++
	return last
}

// copy is the same tape, rewound, whose exchanges can be changed.
func (t *tape) copy() *tape {
	c := &tape{tapeHead: t.tapeHead, Exchanges: slices.Clone(t.Exchanges)}
	for i := range c.Exchanges {
		c.Exchanges[i].Header = maps.Clone(c.Exchanges[i].Header)
	}
	return c
}
