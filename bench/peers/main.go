// Command peers serves the same order as the gateway by means that others would take: echo with the usual middlewares, and caches of go-zero and
// rueidis. It also simulates cache policies. `make bench-read` builds and runs it; it is a module of its own, so that the program needs none of its
// libraries.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"
)

// config is what bench writes for a server.
type config struct {
	Addr   string   `json:"addr"`
	Redis  string   `json:"redis"`  // URL
	Key    string   `json:"key"`    // API key
	Orders []string `json:"orders"` // paths that are read
	Answer answer   `json:"answer"` // to each
}

type answer struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 1 && (arguments[0] == "hits" || arguments[0] == "search") {
		return json.NewEncoder(os.Stdout).Encode(simulate(arguments[0] == "search"))
	}
	servers := map[string]func(config) (*echo.Echo, error){"stock": stock, "go-zero-memory": goZeroMemory, "go-zero-redis": goZeroRedis, "rueidis": rueidisClient}
	if len(arguments) != 2 || servers[arguments[0]] == nil {
		return errors.New("usage: peers hits | search | SERVER FILE")
	}
	var c config
	file, err := os.ReadFile(arguments[1])
	if err != nil {
		return err
	}
	if err = json.Unmarshal(file, &c); err != nil {
		return err
	}
	e, err := servers[arguments[0]](c)
	if err != nil {
		return err
	}
	e.HideBanner, e.HidePort = true, true
	return e.Start(c.Addr)
}

// cached is a bare echo server that takes the bytes of each order from a cache.
func (c config) cached(get func(c echo.Context, key string) ([]byte, error)) *echo.Echo {
	e := echo.New()
	e.GET("/v1/orders/:order_id", func(ctx echo.Context) error {
		body, err := get(ctx, keyOf(ctx.Request().URL.Path))
		if err != nil {
			return err
		}
		maps.Copy(ctx.Response().Header(), c.Answer.Header)
		ctx.Response().WriteHeader(http.StatusOK)
		_, err = ctx.Response().Write(body)
		return err
	})
	return e
}

// keyOf is the key in Redis of a path.
func keyOf(path string) string { return "bench-peers:" + path }
