package command

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/order"
)

// UpdateOrder applies a merge patch to the metadata and the shipping address of an order. In one transaction on the primary it writes the
// order with its event and the address's row; the caches get the order after the COMMIT. The result is 200 and the order as it is then; a
// patch that changes nothing writes nothing. Repeated with the same If-Match it is refused once it was done. Refusals: ORD_001, REQ_011,
// REQ_010, REQ_002 (what the patch makes of the order breaks the contract), ORD_002 (another address for an order that was shipped or has
// ended). Failures: SYS_002, SYS_003, RATE_003 (nothing changed), SYS_006 (the outcome is not known).
func (c *Commands) UpdateOrder(ctx context.Context, e Envelope, id order.ID, patch api.MergePatch) (Result, error) {
	if !c.cfg.IDs.Genuine(id) {
		return Result{}, apierr.E(errcode.ORD001)
	}
	e.Subject = id.Format(order.PrefixOrder)
	return c.execute(ctx, e, patch, updateOrder{e, order.Ref{Owner: e.Owner, ID: id}, patch})
}

type updateOrder struct {
	Envelope
	ref   order.Ref
	patch api.MergePatch
}

// patchable are the properties of an order that a patch may name.
type patchable struct {
	Metadata        map[string]string `json:"metadata"`
	ShippingAddress *api.Address      `json:"shipping_address"`
}

// maxMetadata is the contract's bound for the entries of metadata.
const maxMetadata = 20

// check refuses what a patch that satisfies the contract can make of properties that do: too much, or a part of an address.
func (p patchable) check() error {
	var faults []apierr.Fault
	if len(p.Metadata) > maxMetadata {
		faults = append(faults, apierr.Fault{Pointer: "/metadata", Rule: errcode.RuleMaxProperties, Expected: strconv.Itoa(maxMetadata)})
	}
	if a := p.ShippingAddress; a != nil {
		for _, required := range []struct{ name, value string }{
			{"city", a.City}, {"country", a.Country}, {"line1", a.Line1}, {"name", a.Name}, {"postal_code", a.PostalCode},
		} {
			if required.value == "" {
				faults = append(faults, apierr.Fault{Pointer: "/shipping_address/" + required.name, Rule: errcode.RuleRequired})
			}
		}
	}
	if len(faults) > 0 {
		return apierr.E(errcode.REQ002, apierr.Faults(faults...))
	}
	return nil
}

func (u updateOrder) needs() needs { return needs{orders: []order.Ref{u.ref}} }

func (u updateOrder) decide(l *loaded, rec order.Recorder) (effect, error) {
	change, ok := l.orders[u.ref]
	if !ok {
		return effect{}, apierr.E(errcode.ORD001)
	}
	before, err := change.body()
	if err != nil {
		return effect{}, err
	}
	if err = u.checkPrecondition(before.ETag, change.order.Version); err != nil {
		return effect{}, err
	}
	present := patchable{Metadata: change.order.Metadata}
	if change.address != nil {
		if err = json.Unmarshal(change.address, &present.ShippingAddress); err != nil {
			return effect{}, fmt.Errorf("decode address: %w", err)
		}
	}
	next, err := applyPatch(present, u.patch)
	if err != nil {
		return effect{}, err
	}
	if err = next.check(); err != nil {
		return effect{}, err
	}
	if next.Metadata == nil { // it was null in the patch
		next.Metadata = map[string]string{}
	}
	moved := !reflect.DeepEqual(next.ShippingAddress, present.ShippingAddress)
	events, err := change.order.Update(rec, next.Metadata, moved)
	if err != nil {
		return effect{}, err
	}
	result := Result{Status: 200, ContentType: "application/json", Body: before, OrderID: u.ref.ID}
	if len(events) == 0 {
		return effect{result: result}, nil
	}
	change.events = append(change.events, events...)
	if moved {
		change.move(next.ShippingAddress)
	}
	change.encoded = nil
	result.Body, err = change.body()
	return effect{orders: []*orderChange{change}, result: result}, err
}

// move gives the order another address, or none.
func (c *orderChange) move(a *api.Address) {
	c.address, c.moved = nil, true
	if a != nil {
		c.address = encode(a)
	}
}
