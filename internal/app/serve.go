package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/accountsdb"
	"github.com/ordergate/ordergate/internal/edge"
	"github.com/ordergate/ordergate/order"
)

// serve answers the API until ctx ends. static are API keys that are valid beside the database's.
func (p *parts) serve(ctx context.Context, static map[string]*edge.Key) error {
	server, err := p.server(static)
	if err != nil {
		return err
	}
	l, err := listen(ctx, "ORDERGATE_ADDR", p.cfg.Addr)
	if err != nil {
		return err
	}
	p.tel.Log.Info("listening", zap.String("api", l.Addr().String()))
	return server.Serve(ctx, l, p.cfg.DrainDelay)
}

func (p *parts) server(static map[string]*edge.Key) (*edge.Server, error) {
	return edge.New(edge.Config{
		Commands: p.commands, Queries: p.reader, Auth: edge.NewAuthenticator(p.findKey, static, time.Now), Signer: p.signer,
		Timeline: p.timeline.Load, Origins: p.cfg.Origins, Log: p.tel.Log, Tracer: p.tel.Tracer, Registry: p.tel.Registry,
	})
}

func listen(ctx context.Context, name, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// findKey looks an API key up on the primary.
func (p *parts) findKey(ctx context.Context, hash []byte) (*edge.Key, error) {
	row, err := accountsdb.New(p.primary).FindKey(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &edge.Key{
		ID: order.ID(row.ID).Format(order.PrefixKey), Owner: order.Owner{Account: row.Account, Mode: row.Mode}, Scopes: row.Scopes,
		ExpiresAt: row.ExpiresAt, RevokedAt: row.RevokedAt,
	}, nil
}
