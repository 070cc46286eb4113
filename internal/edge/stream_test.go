package edge

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

var errRead = errors.New("connection refused")

// A stream that fails behind its head has told its client 200: the log alone says what became of it.
func TestAStreamThatFailsIsLogged(t *testing.T) {
	t.Parallel()
	down := apierr.E(errcode.SYS002, apierr.Cause(errRead))
	final := query.News{Final: true}
	type read = func() (query.News, error)
	fails := func() (query.News, error) { return query.News{}, down }
	for name, c := range map[string]struct {
		reads []read // the last one for ever
		leave time.Duration
		stop  time.Duration
		level string
		code  string
		cause string // a part of it
		end   string
	}{
		"it panics":                          {[]read{func() (query.News, error) { panic("a bug") }}, 0, 0, "error", "SYS_001", "stream_test.go", ""},
		"it panics when its client has gone": {[]read{func() (query.News, error) { <-time.After(30 * time.Second); panic("a bug") }}, 20 * time.Second, 0, "error", "SYS_001", "stream_test.go", ""},
		"no read works any more":             {[]read{fails}, 0, 0, "error", "SYS_002", errRead.Error(), "reconnect"},
		"a read fails once":                  {[]read{fails, func() (query.News, error) { return final, nil }}, 0, 0, "info", "", errRead.Error(), "terminal"},
		"its client goes meanwhile":          {[]read{fails}, 20 * time.Second, 0, "info", "", errRead.Error(), ""},
		"the server stops meanwhile":         {[]read{fails}, 0, 20 * time.Second, "info", "", errRead.Error(), "draining"},
		"nothing happens":                    {[]read{func() (query.News, error) { return query.News{}, nil }}, 0, 0, "info", "", "", "reconnect"},
		"it ends":                            {[]read{func() (query.News, error) { return final, nil }}, 0, 0, "info", "", "", "terminal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				core, logged := observer.New(zap.InfoLevel)
				var s *Server
				s = smallServer(t, op("s", "GET", "/s", func(ctx context.Context, r *request) (response, error) {
					r.add("Content-Type", "text/event-stream")
					if !s.send(r, response{status: http.StatusOK}) {
						return response{}, nil
					}
					reads := c.reads
					return response{}, s.follow(ctx, r, query.News{}, 0, nil, func(int64, token.Token) (query.News, error) {
						next := reads[0]
						reads = reads[min(1, len(reads)-1):]
						return next()
					})
				}, streaming, answers([]int{200}, errcode.SYS001, errcode.SYS002)))
				s.cfg.Log = zap.New(core)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				if c.leave > 0 {
					time.AfterFunc(c.leave, leave)
				}
				if c.stop > 0 {
					time.AfterFunc(c.stop, s.stop)
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/s", http.NoBody))
				if got := w.Body.String(); w.Code != http.StatusOK || strings.Contains(got, "event: end") != (c.end != "") || !strings.Contains(got, c.end) {
					t.Errorf("%d %q", w.Code, got)
				}
				if logged.Len() != 1 {
					t.Fatalf("%d events are logged", logged.Len())
				}
				e := logged.All()[0]
				cause, _ := e.ContextMap()["error"].(string)
				if e.Level.String() != c.level || e.ContextMap()["code"] != c.code || !strings.Contains(cause, c.cause) || (cause == "") != (c.cause == "") {
					t.Errorf("%s %v", e.Level, e.ContextMap())
				}
				if got := samples(t, s, "ordergate_refusals_total"); got[c.code] != 1 && c.code != "" {
					t.Errorf("refusals: %v", got)
				}
			})
		})
	}
}

// A failure whose client did not wait for it is no error of ours: the client may be what failed it.
func TestAFailureWithoutAClientIsNoError(t *testing.T) {
	t.Parallel()
	for gone, level := range map[bool]zapcore.Level{true: zap.InfoLevel, false: zap.ErrorLevel} {
		ctx, leave := context.WithCancel(t.Context())
		s := smallServer(t, op("p", "POST", "/p", func(context.Context, *request) (response, error) {
			if gone {
				leave()
			}
			return response{}, apierr.E(errcode.SYS002, apierr.Cause(errRead))
		}, answers([]int{200}, errcode.SYS002)))
		core, logged := observer.New(zap.InfoLevel)
		s.cfg.Log = zap.New(core)
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/p", http.NoBody))
		if logged.Len() != 1 || logged.All()[0].Level != level {
			t.Errorf("gone %v: %v", gone, logged.All())
		}
		leave()
	}
}
