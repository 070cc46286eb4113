package main

import (
	"bytes"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// TestParts runs each part once, small. The programs are those that make built.
func TestParts(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts servers")
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			if runtime.GOOS != "linux" && (p.name == "kills" || p.name == "disk") {
				t.Skip("clocks and volumes are set by tools of Linux")
			}
			t.Parallel()
			var table bytes.Buffer
			if err := run(t.Context(), map[string]string{p.name: ""}, small, "../../bin", &table, t.Logf); err != nil {
				t.Errorf("%v\n%s", err, &table)
			}
		})
	}
}

// TestAnswersAreCompared: an answer that differs from an earlier one of its key is a finding, and so is a second one that is not a replay.
func TestAnswersAreCompared(t *testing.T) {
	answer := func(body string, headers ...string) response {
		r := response{status: http.StatusAccepted, header: http.Header{}, body: []byte(body)}
		for n := 0; n < len(headers); n += 2 {
			r.header.Set(headers[n], headers[n+1])
		}
		return r
	}
	first := answer(`{"id":"a"}`, "ETag", `"1"`)
	for name, c := range map[string]struct {
		second response
		broken int
	}{
		"the same":        {answer(`{"id":"a"}`, "ETag", `"1"`, "Idempotency-Replayed", "true", "X-Consistency-Token", "x"), 0},
		"another body":    {answer(`{"id": "a"}`, "ETag", `"1"`, "Idempotency-Replayed", "true"), 1},
		"another ETag":    {answer(`{"id":"a"}`, "ETag", `"2"`, "Idempotency-Replayed", "true"), 1},
		"another header":  {answer(`{"id":"a"}`, "ETag", `"1"`, "Location", "/", "Idempotency-Replayed", "true"), 1},
		"a refusal":       {response{status: http.StatusUnprocessableEntity, header: http.Header{}}, 1},
		"another outcome": {response{status: http.StatusCreated, header: first.header, body: first.body}, 1},
	} {
		r := row{}
		got := newAnswers(&r)
		got.add(0, first)
		got.add(0, c.second)
		if len(r.broken) != c.broken || got.fresh[0] != 1 {
			t.Errorf("%s: %v, %d not replayed", name, r.broken, got.fresh[0])
		}
	}
}

// TestUndecided: a client sends again what may have another answer later, and nothing else.
func TestUndecided(t *testing.T) {
	for code, want := range map[string]bool{"IDEM_003": true, "ORD_002": false} {
		r := response{status: http.StatusConflict, body: []byte(`{"code":"` + code + `"}`)}
		if r.undecided() != want {
			t.Errorf("%s: %v", code, r.undecided())
		}
	}
	for status, want := range map[int]bool{0: true, 202: false, 422: false, 429: true, 503: true} {
		if (response{status: status}).undecided() != want {
			t.Errorf("%d: %v", status, !want)
		}
	}
	if (response{status: 502, header: http.Header{"Idempotency-Replayed": {"true"}}}).undecided() {
		t.Error("a stored result is sent for again")
	}
}

// TestUnknownParts: what cannot be run is refused before anything is.
func TestUnknownParts(t *testing.T) {
	for _, name := range []string{"failpoint", "idempotency/pairs", "failpoints/x", "", "soak"} {
		if chosen, err := choose([]string{"cache", name}); err == nil {
			t.Errorf("%s: %v", name, chosen)
		}
	}
	for names, want := range map[string]int{"": len(parts), "cache model": 2, "failpoints/relay.": 1} {
		if chosen, err := choose(strings.Fields(names)); err != nil || len(chosen) != want {
			t.Errorf("%s: %v, %v", names, chosen, err)
		}
	}
}
