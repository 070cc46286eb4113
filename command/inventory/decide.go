package inventory

import (
	"time"

	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/rfc3339"
	"github.com/ordergate/ordergate/order"
)

// Statuses of a reservation.
const (
	StatusHeld      = "held"
	StatusRefused   = "refused"
	StatusConfirmed = "confirmed"
	StatusCancelled = "cancelled" // without lines: a tombstone, which refuses its Reserve
	StatusExpired   = "expired"
)

// Reservation is one attempt to reserve an order's stock: a header with its lines.
type Reservation struct {
	ref
	Status  string
	Lines   []Line
	Expires time.Time // of a new one
	stored  string    // the status in the database; empty: there is no row yet
}

// Decide decides one command on its reservation, nil if there is none, and on the stock of its lines. It moves the stock, whose events tell
// if it is low now, and returns the reservation after the command and the reply. Without a reply the command has its outcome already and
// changes nothing.
func Decide(e outbox.Envelope, c Command, r *Reservation, stock Stock, ttl time.Duration, rec order.Recorder) (*Reservation, *outbox.Message) {
	id, reply := ref{e.Ref(), c.Attempt}, Reply{Attempt: c.Attempt}
	var kind string
	switch {
	case e.Type == Reserve && r == nil:
		r = &Reservation{ref: id, Status: StatusRefused, Expires: rec.Now.Add(ttl)}
		kind, reply.SKUs = ReserveRefused, shortages(stock, id, c.Lines)
		if len(reply.SKUs) == 0 {
			r.Status, r.Lines = StatusHeld, c.Lines
			expires := rfc3339.New(r.Expires)
			kind, reply.ExpiresAt = Reserved, &expires
			r.move(stock, rec, 0, 1)
		}
	case e.Type == Reserve && r.Status == StatusCancelled && len(r.Lines) == 0:
		kind = ReserveRefused
	case e.Type == Confirm && r != nil && r.Status == StatusHeld:
		kind, r.Status = Confirmed, StatusConfirmed
		r.move(stock, rec, -1, -1)
	case e.Type == Confirm && (r == nil || r.Status != StatusConfirmed):
		kind = ConfirmRefused
	case e.Type == Cancel && r == nil:
		kind, r = Cancelled, &Reservation{ref: id, Status: StatusCancelled, Expires: rec.Now}
	case e.Type == Cancel && r.Status == StatusHeld:
		kind, r.Status = Cancelled, StatusCancelled
		r.move(stock, rec, 0, -1)
	case e.Type == Cancel && r.Status == StatusConfirmed:
		kind, r.Status = Cancelled, StatusCancelled
		r.move(stock, rec, 1, 0)
	case e.Type == Cancel && (r.Status == StatusExpired || r.Status == StatusRefused):
		kind = Cancelled
	case e.Type == Expire && r != nil && r.Status == StatusHeld:
		kind, r.Status = Expired, StatusExpired
		r.move(stock, rec, 0, -1)
	default:
		return r, nil
	}
	cause := outbox.Cause{ID: rec.NewID(), TraceID: e.TraceID, Now: rec.Now}
	message := outbox.New(TopicReplies, kind, id.Ref, cause, reply)
	return r, &message
}

// move changes the levels by the reservation's lines, times the given signs.
func (r *Reservation) move(s Stock, rec order.Recorder, onHand, reserved int64) {
	for _, l := range r.Lines {
		level := s[r.item(l)]
		if level == nil { // somebody deleted the row: Write fails
			level = &Level{Item: r.item(l), lowAt: -1}
			s[r.item(l)] = level
		}
		level.reserving = true
		level.move(rec, onHand*l.Quantity, reserved*l.Quantity)
	}
}

// shortages lists the lines of which less is available than requested.
func shortages(s Stock, r ref, lines []Line) (skus []order.ShortSKU) {
	for _, l := range lines {
		available := int64(0)
		if level := s[r.item(l)]; level != nil {
			available = level.Available()
		}
		if available < l.Quantity {
			skus = append(skus, order.ShortSKU{SKU: l.SKU, Requested: l.Quantity, Available: available})
		}
	}
	return skus
}
