package contracttest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// get sends a request that must be answered with one of the statuses and decodes its body into out.
func (s *suite) get(ctx context.Context, out any, c call, statuses ...int) (reply, bool) {
	r, ok := s.send(ctx, c)
	if !ok {
		return r, false
	}
	if !slices.Contains(statuses, r.status) {
		s.foundf(r, "/status", "is not %s%s", strings.ReplaceAll(strings.Trim(fmt.Sprint(statuses), "[]"), " ", " or "), why(r))
		return r, false
	}
	if out != nil {
		if err := json.Unmarshal(r.body, out); err != nil {
			s.foundf(r, "/body", "cannot be decoded: %v", err)
			return r, false
		}
	}
	return r, true
}

func why(r reply) string {
	if r.problem.Code == "" {
		return ""
	}
	texts := []string{", but", r.problem.Code}
	for _, f := range r.problem.Errors {
		texts = append(texts, f.Pointer, f.Rule)
	}
	return strings.Join(texts, " ")
}

// refused sends a request that must be refused with the code; pointers are what its `errors` must name.
func (s *suite) refused(ctx context.Context, code errcode.Code, c call, pointers ...string) reply {
	r, ok := s.send(ctx, c)
	if !ok {
		return r
	}
	if r.problem.Code != string(code) {
		s.foundf(r, "/body/code", "is not %s%s", code, why(r))
		return r
	}
	for _, p := range pointers {
		if !slices.ContainsFunc(r.problem.Errors, func(f api.Fault) bool { return f.Pointer == p }) {
			s.foundf(r, "/body/errors", "does not name %s%s", p, why(r))
		}
	}
	return r
}

// unchanged repeats a read with the ETag of the answer before until the response is 304: others may change what it reads. The ETag of the request
// says that nothing has changed. If it changes for as long as that is waited for, and others may change it, it is skipped.
func (s *suite) unchanged(ctx context.Context, c call, held reply) {
	patience := min(s.Patience, 3*time.Second)
	for end := time.Now().Add(patience); ; {
		tag := held.header.Get("ETag")
		r, ok := s.get(ctx, nil, c.with("If-None-Match", tag), http.StatusNotModified, http.StatusOK)
		same := r.header.Get("ETag") == tag
		switch {
		case !ok:
			return
		case r.status == http.StatusNotModified:
			s.foundIf(!same, r, "/header/ETag", "is %q and not that of the request, %q", r.header.Get("ETag"), tag)
			return
		case same:
			s.foundf(r, "/status", "is 200 and not 304, and the ETag is that of If-None-Match, %s", tag)
			return
		case time.Now().After(end) || !pause(ctx, time.Millisecond):
			if s.shared(c) {
				s.skipf("whether %s answers 304 could not be seen: it changed all the time", c.op)
			} else {
				s.foundIf(ctx.Err() == nil, r, "", "not seen within %v: 304 for the ETag that it has just given", patience)
			}
			return
		}
		held = r
	}
}

// shared tells whether others may change what a call reads: a list of the account, or a product that the run has not created.
func (s *suite) shared(c call) bool {
	op := s.contract.operations[c.op]
	return op != nil && (op.pathParameter() == "" && !c.query.Has("customer_ref") || op.pathParameter() == "sku" && c.arg != s.ref)
}

const (
	maxMissed  = 2                      // times that the run waits in vain for a thing of the same kind
	impatience = 250 * time.Millisecond // is how long it is waited for after that
)

// poll repeats until done, and notes a finding if it is not in time.
func (s *suite) poll(outer context.Context, patience time.Duration, about reply, what string, done func() bool) {
	if s.missed[what] >= maxMissed {
		patience = min(patience, impatience)
	}
	ctx, cancel := context.WithTimeout(outer, patience)
	defer cancel()
	for wait := 5 * time.Millisecond; !done(); wait = min(2*wait, 250*time.Millisecond) {
		if s.hurries {
			wait = time.Millisecond
		}
		if !pause(ctx, wait) {
			s.missed[what]++
			s.foundIf(outer.Err() == nil, about, "", "not seen within %v: %s", patience, what)
			return
		}
	}
}

func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		v.Set(pair[0], pair[1])
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
