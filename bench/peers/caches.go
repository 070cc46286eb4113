package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/rueidis"
	"github.com/zeromicro/go-zero/core/collection"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/stores/cache"
	"github.com/zeromicro/go-zero/core/stores/redis"
	"github.com/zeromicro/go-zero/core/syncx"
)

const (
	inMemory = 2 * time.Second  // as long as an entry of our LRU
	inRedis  = 10 * time.Second // likewise
)

// store writes the orders to Redis; in a read-through cache they would come from a database.
func store(c config, set func(key string, body []byte) error) error {
	var all error
	for _, path := range c.Orders {
		all = errors.Join(all, set(keyOf(path), c.Answer.Body))
	}
	return all
}

func goZeroClient(c config) (*redis.Redis, error) {
	logx.Disable() // it logs its statistics
	u, err := url.Parse(c.Redis)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	r, err := redis.NewRedis(redis.RedisConf{Host: u.Host, Type: redis.NodeType, User: u.User.Username(), Pass: password})
	if err != nil {
		return nil, err
	}
	return r, store(c, func(key string, body []byte) error { return r.Set(key, string(body)) })
}

// goZeroMemory is go-zero's cache in the process, in front of Redis.
func goZeroMemory(c config) (*echo.Echo, error) {
	r, err := goZeroClient(c)
	if err != nil {
		return nil, err
	}
	memory, err := collection.NewCache(inMemory, collection.WithLimit(50_000))
	return c.cached(func(ctx echo.Context, key string) ([]byte, error) {
		body, err := memory.Take(key, func() (any, error) {
			text, err := r.GetCtx(ctx.Request().Context(), key)
			return []byte(text), err
		})
		found, _ := body.([]byte) // nothing else is put there
		return found, err
	}), err
}

// goZeroRedis is go-zero's cache in front of a database: Redis, read once for all callers at the time.
func goZeroRedis(c config) (*echo.Echo, error) {
	r, err := goZeroClient(c)
	end := c.Answer.Body[len(bytes.TrimSpace(c.Answer.Body)):] // the line's end is no JSON, as this cache keeps it
	node := cache.NewNode(r, syncx.NewSingleFlight(), cache.NewStat("bench"), errors.New("not found"), cache.WithExpiry(inRedis))
	return c.cached(func(ctx echo.Context, key string) ([]byte, error) {
		var body json.RawMessage //nolint:prealloc // the cache gives it its bytes
		err := node.TakeCtx(ctx.Request().Context(), &body, key, func(v any) error {
			return json.Unmarshal(c.Answer.Body, v)
		})
		return append(body, end...), err
	}), err
}

// rueidisClient is client-side caching: entries stay in the process until Redis says that they changed, or until they end.
func rueidisClient(c config) (*echo.Echo, error) {
	option, err := rueidis.ParseURL(c.Redis)
	if err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, err
	}
	err = store(c, func(key string, body []byte) error {
		return client.Do(context.Background(), client.B().Set().Key(key).Value(rueidis.BinaryString(body)).Build()).Error()
	})
	return c.cached(func(ctx echo.Context, key string) ([]byte, error) {
		return client.DoCache(ctx.Request().Context(), client.B().Get().Key(key).Cache(), inRedis).AsBytes()
	}), err
}
