package command

import (
	"cmp"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/command/payment"
	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/pg"
)

// TakeProviderCallback stores what a payment provider called us with, raw, in one transaction on the primary, and makes the open calls of
// its payment due (payment.QueueCallback), in two round trips. It has no key and locks nothing that commands wait for, so that it needs no place in their
// queue. Repeating it is safe: an event that was taken changes nothing, and one about a payment that is
// not known is parked. Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) TakeProviderCallback(ctx context.Context, provider string, body api.ProviderCallback, raw []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Budget)
	defer cancel()
	callback := payment.Callback{
		Provider: provider, EventID: body.ID, Key: body.Operation.Key, Kind: *cmp.Or(body.Operation.Kind, new("")),
		Payment: *cmp.Or(body.Operation.Payment, new("")), Status: body.Operation.Status, Body: string(raw),
	}
	var result payment.CallbackResult
	var txErr error // the guard's own error may hide it
	err := c.guard.Do(ctx, func(ctx context.Context) error {
		txErr = pg.InPipeline(ctx, c.cfg.Pool, func(*pgx.Batch) {}, func(_ pgx.Tx, ends *pg.Ends) error {
			payment.QueueCallback(&ends.Last.Batch, c.cfg.IDs, callback, &result)
			return nil
		})
		return txErr
	})
	switch {
	case errors.Is(txErr, pg.ErrOutcomeUnknown):
		return apierr.E(errcode.SYS006, apierr.Cause(txErr))
	case err != nil:
		return toClientError(err)
	}
	c.callbacks.WithLabelValues(string(result)).Inc()
	return nil
}
