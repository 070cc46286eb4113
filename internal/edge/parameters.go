package edge

import (
	"context"

	"github.com/ordergate/ordergate/internal/check"
	"github.com/ordergate/ordergate/order"
)

// Parameters implements api.Request.
func (r *request) Parameters() *check.Parameters {
	r.sent.Reset(r.path.ParamValues(), r.http.URL.RawPath != "", r.http.URL.RawQuery, r.http.Header) // without RawPath net/url has decoded the path
	return &r.sent
}

// Checked implements api.Request.
func (r *request) Checked(ctx context.Context) (context.Context, error) {
	if err := r.sent.Err(); err != nil {
		return ctx, err
	}
	if r.fault != "" {
		ctx = r.server.withFault(ctx, r)
	}
	return ctx, nil
}

// The parameters that operations share (api.Shared). An id that is formed as the contract demands may be none of ours: then it is the zero id,
// which nothing has.

// SetOrderID implements api.Shared, as the methods below do.
func (r *request) SetOrderID(value string) bool {
	r.orderID, _ = order.Parse(order.PrefixOrder, value)
	return true
}

func (r *request) SetPaymentID(value string) bool {
	r.paymentID, _ = order.Parse(order.PrefixPayment, value)
	return true
}

func (r *request) SetRefundID(value string) bool {
	r.refundID, _ = order.Parse(order.PrefixRefund, value)
	return true
}

func (r *request) SetShipmentID(value string) bool {
	r.shipmentID, _ = order.Parse(order.PrefixShipment, value)
	return true
}

func (r *request) SetSku(value string) bool {
	r.sku = value
	return true
}

func (r *request) SetLimit(value int32) bool {
	r.page.Limit = int(value)
	return true
}

func (r *request) SetCursor(value string) bool {
	r.page.Cursor = value
	return true
}

func (r *request) SetIfNoneMatch(value string) bool {
	r.ifNoneMatch = value
	return true
}

func (r *request) SetIfMatch(value string) bool {
	r.ifMatch = value
	return true
}

// SetXConsistencyToken is false for a token that is not ours.
func (r *request) SetXConsistencyToken(value string) (ok bool) {
	r.token, ok = r.server.cfg.Signer.Parse(value)
	return ok
}
