package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"
)

// bareArgument makes this program a bare server: the limit of the read path. It is echo with its router, as echo starts it by itself, without
// time-outs, and a handler that sends a response which is ready.
const bareArgument = "bare"

// bareConfig is for the servers of bench/peers, too.
type bareConfig struct {
	Addr   string   `json:"addr"`
	Answer answer   `json:"answer"`
	Key    string   `json:"key,omitempty"`    // API key
	Redis  string   `json:"redis,omitempty"`  // URL
	Orders []string `json:"orders,omitempty"` // paths that are read
}

type answer struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// bare serves what a file says, and never returns.
func bare(file string) {
	var c bareConfig
	must(json.Unmarshal(try(os.ReadFile(file)), &c))
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.GET("/v1/orders/:order_id", func(ctx echo.Context) error { return c.Answer.send(ctx, c.Answer.Body) })
	must(e.Start(c.Addr))
}

func (a answer) send(c echo.Context, body []byte) error {
	maps.Copy(c.Response().Header(), a.Header)
	c.Response().WriteHeader(http.StatusOK)
	_, err := c.Response().Write(body)
	return err
}
