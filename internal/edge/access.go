package edge

import (
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// accessEvent is the one event of a request in the log.
type accessEvent struct {
	at         time.Time // of its end
	traceID    string
	operation  string
	method     string
	status     int
	clientGone bool
	code       errcode.Code
	tier       string
	orderID    order.ID // zero: it is about no order
	account    int32
	took       time.Duration
}

// fields are the event for zap, which escapes what needs it.
func (e *accessEvent) fields() []zap.Field {
	orderID := ""
	if !e.orderID.IsZero() {
		orderID = e.orderID.Format(order.PrefixOrder)
	}
	return []zap.Field{
		zap.String("trace_id", e.traceID), zap.String("operation", e.operation), zap.String("method", e.method), zap.Int("status", e.status),
		zap.Bool("client_gone", e.clientGone), zap.String("code", string(e.code)), zap.String("tier", e.tier), zap.String("order_id", orderID),
		zap.Int32("account", e.account), zap.Duration("duration", e.took),
	}
}

// appendLine appends the event as a line of level info, byte for byte what the logger of package telemetry writes of its fields. It escapes
// nothing: the texts are those of the contract and of our code, and a trace id of the shape that givenTraceID lets in.
func (e *accessEvent) appendLine(b []byte) []byte {
	b = append(b, `{"level":"info","time":"`...)
	b = e.at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","msg":"request","trace_id":"`...)
	b = append(b, e.traceID...)
	b = append(b, `","operation":"`...)
	b = append(b, e.operation...)
	b = append(b, `","method":"`...)
	b = append(b, e.method...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(e.status), 10)
	b = append(b, `,"client_gone":`...)
	b = strconv.AppendBool(b, e.clientGone)
	b = append(b, `,"code":"`...)
	b = append(b, e.code...)
	b = append(b, `","tier":"`...)
	b = append(b, e.tier...)
	b = append(b, `","order_id":"`...)
	if !e.orderID.IsZero() {
		b = e.orderID.Append(b, order.PrefixOrder)
	}
	b = append(b, `","account":`...)
	b = strconv.AppendInt(b, int64(e.account), 10)
	b = append(b, `,"duration":`...)
	b = strconv.AppendFloat(b, float64(e.took)/float64(time.Second), 'f', -1, 64)
	return append(b, "}\n"...)
}
