package command

import (
	"fmt"

	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
)

// depot is inventory alone: the commands of two orders that want the same pieces come in any order, any number of times.
type depot struct {
	*parties
	pieces       int64
	level        [2]int64
	reservations [2]*inventory.Reservation
	cancelled    [2]bool // a cancel was answered
	wrong        *breach
}

var depotOrders = [2]order.Ref{{Owner: alice, ID: modelRecorder().NewID()}, {Owner: alice, ID: modelRecorder().NewID()}}

func newDepot(pieces int64, p parties) depot {
	return depot{parties: &p, pieces: pieces, level: [2]int64{pieces, 0}}
}

func (d depot) broken() *breach { return d.wrong }

func (d depot) end() (string, *breach) { return "any", nil }

func (d depot) next(yield func(transition)) {
	for i, ref := range depotOrders {
		for _, kind := range []string{inventory.Reserve, inventory.Confirm, inventory.Cancel, inventory.Expire} {
			c := inventory.Command{Attempt: reservation}
			if kind == inventory.Reserve {
				c.Lines = []inventory.Line{{SKU: modelItem.SKU, Quantity: 2}}
			}
			e := outbox.New(inventory.TopicCommands, kind, ref, outbox.Cause{Now: modelNow}, c).Envelope
			yield(transition{fmt.Sprint(kind, " of order ", i+1), true, d.handle(i, e, c)})
		}
	}
}

func (d depot) handle(i int, e outbox.Envelope, c inventory.Command) depot {
	level, r, reply := d.decideStock(e, c, d.level, d.reservations[i])
	if reply == nil {
		return d
	}
	before := d.reservations[i]
	d.level, d.reservations[i] = level, r
	d.wrong = d.judge(i, before, reply.Type)
	d.cancelled[i] = d.cancelled[i] || reply.Type == inventory.Cancelled
	return d
}

// judge compares a reply with what it tells of.
func (d depot) judge(i int, before *inventory.Reservation, reply string) *breach {
	after := pick(d.reservations[i])
	if b := judgeReservation(before, d.reservations[i]); b != nil {
		return b
	}
	if b := judgeStock(d.level, d.pieces, d.reservations[:]...); b != nil {
		return b
	}
	has := after.Status == inventory.StatusHeld || after.Status == inventory.StatusConfirmed
	if has && d.cancelled[i] {
		return breaks(ruleReservation, "it was cancelled and is %s", after.Status)
	}
	if want := reply == inventory.Reserved || reply == inventory.Confirmed; has != want {
		return breaks(ruleReservation, "it is %s, the reply %s", after.Status, reply)
	}
	return nil
}

func (d depot) appendKey(b []byte) []byte {
	return fmt.Appendf(b, "%v %v %s %d %s %d", d.level, d.cancelled, pick(d.reservations[0]).Status, len(pick(d.reservations[0]).Lines),
		pick(d.reservations[1]).Status, len(pick(d.reservations[1]).Lines))
}
