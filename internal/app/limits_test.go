package app

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestAKeyHasItsLimitOnce: three processes that share a Redis keep a key to its limit together, and a change of it holds in all of them.
// One without the API does not count, nor one that has ended.
func TestAKeyHasItsLimitOnce(t *testing.T) {
	t.Parallel()
	g := startGateway(t, nil)
	urls := []string{g.url}
	others := []*Components{g.assemble(), g.assemble()}
	for _, c := range others {
		urls = append(urls, g.serve(c))
	}
	g.assemble() // as a worker does
	sum := func(c *Components, name string) (n float64) {
		families, err := c.tel.Registry.Gather()
		must(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name {
					n += m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	processes := func() float64 { return sum(g.components, "ordergate_limit_processes") }
	until(t, "three processes share the limits", func() bool { return processes() == 3 })
	run := commandLine(t, g.cfg)
	made, err := run("keys create -account demo -rate 60 -window 10m")
	must(t, err)
	id, key := strings.Fields(made)[1], strings.Fields(made)[3]
	ask := func(url string) (status int, header http.Header) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/orders?limit=1", http.NoBody)
		must(t, err)
		r.Header.Set("Authorization", "Bearer "+key)
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		_ = answer.Body.Close()
		return answer.StatusCode, answer.Header
	}
	// all asks until each process has refused, and returns how many were not refused. At the end a process may refuse because Redis has not counted yet.
	all := func() (given int) {
		for refused := map[string]bool{}; len(refused) < len(urls); {
			for _, url := range urls {
				status, header := ask(url)
				if refused[url] = status == http.StatusTooManyRequests; !refused[url] {
					given++
					delete(refused, url)
				} else { // what was given out beyond the limit comes back first
					_, reset, _ := strings.Cut(header.Get("RateLimit"), ";t=")
					seconds, err := strconv.Atoi(header.Get("Retry-After"))
					if full, errFull := strconv.Atoi(reset); err != nil || errFull != nil || seconds < 1 || seconds > min(full, 600) {
						t.Errorf("Retry-After is %q with %q", header.Get("Retry-After"), header.Get("RateLimit"))
					}
				}
			}
		}
		return given
	}
	begin := time.Now()
	n, least, most := all(), 40, 60+3*16+1+int(time.Since(begin)/(10*time.Second))
	for _, c := range append(others, g.components) {
		if sum(c, "ordergate_limit_refusals_total") == 0 {
			t.Error("its refusals do not count")
		}
		if sum(c, "ordergate_limit_processes") < 0 { // on a busy machine: each keeps to its share
			least, most = 0, most+60
		}
	}
	if n < least || n > most {
		t.Errorf("%d of 60 were given out, at most %d", n, most)
	}
	_, err = run("keys limit " + id + " -rate 90 -window 10m")
	must(t, err)
	until(t, "the new limit holds", func() bool {
		_, header := ask(urls[2])
		return header.Get("RateLimit-Policy") == `"default";q=90;w=600`
	})
	_, err = run("keys revoke " + id)
	must(t, err)
	until(t, "the key is revoked", func() bool {
		status, header := ask(urls[0])
		return status == http.StatusUnauthorized && header.Get("RateLimit") == ""
	})
	others[1].Close()
	until(t, "two processes share the limits", func() bool { return processes() == 2 })
}
