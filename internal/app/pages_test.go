package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/telemetry"
)

// TestConsole: the console is there in development, and in production only if it is asked for. In production no page is told a key.
func TestConsole(t *testing.T) {
	on, off := true, false
	for name, c := range map[string]struct {
		env     string
		console *bool
		page    string // the status of /console
	}{
		"development":             {development, nil, "200"},
		"development, turned off": {development, &off, "404"},
		"production":              {production, nil, "404"},
		"production, turned on":   {production, &on, "200"},
	} {
		t.Run(name, func(t *testing.T) {
			components := &Components{
				cfg: Config{Env: c.env, Console: c.console},
				tel: &telemetry.Telemetry{Log: zap.NewNop(), Registry: prometheus.NewRegistry()},
			}
			pages, err := components.pages(http.NotFoundHandler(), DemoKey)
			if err != nil {
				t.Fatal(err)
			}
			get := func(target string) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				pages.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
				return w
			}
			if w := get("/console"); !strings.HasPrefix(w.Result().Status, c.page) {
				t.Errorf("/console is answered %s, want %s", w.Result().Status, c.page)
			}
			for _, target := range []string{"/console", "/console/app.js", "/console/config.json", "/docs/config.json"} {
				want := c.env == development && strings.HasSuffix(target, "config.json") && get(target).Code == http.StatusOK
				if has := strings.Contains(get(target).Body.String(), DemoKey); has != want {
					t.Errorf("%s has the key: %v", target, has)
				}
			}
		})
	}
}
