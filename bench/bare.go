package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/ordergate/ordergate/gen/querydb"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/query"
)

// bareArgument makes this program a bare server: the limit of the read path. It is echo with its router, as echo starts it by itself, without
// time-outs, and a handler that sends a response which is ready.
const bareArgument = "bare"

// bareConfig is for the servers of bench/peers, too.
type bareConfig struct {
	Addr    string   `json:"addr"`
	Answer  answer   `json:"answer"`
	Key     string   `json:"key,omitempty"`     // API key
	Redis   string   `json:"redis,omitempty"`   // URL
	Replica string   `json:"replica,omitempty"` // URL
	Account int32    `json:"account,omitempty"`
	Mode    string   `json:"mode,omitempty"`
	From    string   `json:"from,omitempty"`   // redis or replica: where each row is asked for; empty: nowhere
	Orders  []string `json:"orders,omitempty"` // paths that are read
}

type answer struct {
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// bare serves what a file says, and never returns.
func bare(file string) {
	var c bareConfig
	must(json.Unmarshal(try(os.ReadFile(file)), &c))
	var get func(ctx context.Context, id string) ([]byte, error)
	switch c.From {
	case "redis":
		get = c.fromRedis()
	case "replica":
		get = c.fromReplica()
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.GET("/v1/orders/:order_id", func(ctx echo.Context) error {
		body, err := c.Answer.Body, error(nil)
		if get != nil {
			body, err = get(ctx.Request().Context(), ctx.Param("order_id"))
		}
		if err != nil {
			return err
		}
		maps.Copy(ctx.Response().Header(), c.Answer.Header)
		ctx.Response().WriteHeader(http.StatusOK)
		_, err = ctx.Response().Write(body)
		return err
	})
	must(e.Start(c.Addr))
}

// fromRedis takes the body of each order from Redis, with the gateway's client and as many connections.
func (c bareConfig) fromRedis() func(context.Context, string) ([]byte, error) {
	client, prefix := try(query.OpenRedis(c.Redis)), "bench-bare:"
	for _, path := range c.Orders {
		must(client.Set(context.Background(), prefix+path[strings.LastIndexByte(path, '/')+1:], c.Answer.Body, 0).Err())
	}
	return func(ctx context.Context, id string) ([]byte, error) { return client.Get(ctx, prefix+id).Bytes() }
}

// fromReplica selects the row of each order from the replica, by the gateway's statement, which is prepared, and as many connections. The body
// is ready.
func (c bareConfig) fromReplica() func(context.Context, string) ([]byte, error) {
	pool := try(pgxpool.ParseConfig(c.Replica))
	pool.MaxConns = 32
	maps.Copy(pool.ConnConfig.RuntimeParams, pg.ReadSession)
	pool.AfterConnect = func(_ context.Context, c *pgx.Conn) error { pgxuuid.Register(c.TypeMap()); return nil }
	db := querydb.New(try(pgxpool.NewWithConfig(context.Background(), pool)))
	return func(ctx context.Context, text string) ([]byte, error) {
		id, _ := order.Parse(order.PrefixOrder, text)
		_, err := db.GetOrder(ctx, querydb.GetOrderParams{Account: c.Account, Mode: c.Mode, ID: uuid.UUID(id)})
		return c.Answer.Body, err
	}
}
