package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/gen/psp"
	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/order"
	"github.com/ordergate/ordergate/order/pay"
)

const (
	maxLedgerPage = 1000             // entries, the contract's most
	askLimit      = 30 * time.Second // of one request
)

// ledger is the provider's. last is its greatest sequence before our snapshot was taken: what it has up to there, our database knows.
type ledger struct {
	client *psp.ClientWithResponses
	last   int64
}

// openLedger finds the end of the ledger, by bisection.
func openLedger(ctx context.Context, url string) (*ledger, error) {
	client, err := psp.NewClientWithResponses(url, psp.WithHTTPClient(&http.Client{Timeout: askLimit}))
	if err != nil {
		return nil, fmt.Errorf("payment provider: %w", err)
	}
	l := &ledger{client: client}
	low, high := int64(0), int64(1) // low is no greater than the last sequence; above high is no entry, once growing is over
	for growing := true; growing || low < high; {
		middle := high
		if !growing {
			middle = low + (high-low)/2
		}
		entries, _, err := l.page(ctx, nil, middle, 1)
		switch {
		case err != nil:
			return nil, err
		case len(entries) > 0 && growing:
			low, high = entries[0].Sequence, 2*max(high, entries[0].Sequence)
		case len(entries) > 0:
			low = entries[0].Sequence
		default:
			growing, high = false, middle
		}
	}
	l.last = low
	return l, nil
}

// page reads entries above a sequence, of one payment or of all. next is nil at the end.
func (l *ledger) page(ctx context.Context, payment *string, after int64, limit int32) (entries []psp.LedgerEntry, next *int64, err error) {
	res, err := l.client.ListLedgerWithResponse(ctx, &psp.ListLedgerParams{Payment: payment, After: &after, Limit: &limit})
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("cannot read the provider's ledger: %w", err)
	case res.JSON200 == nil || res.JSON200.Data == nil:
		return nil, nil, fmt.Errorf("cannot read the provider's ledger: it responded with status %d", res.StatusCode())
	}
	for _, e := range res.JSON200.Data {
		if e.Sequence <= after {
			return nil, nil, errors.New("cannot read the provider's ledger: its entries are out of order")
		}
	}
	return res.JSON200.Data, res.JSON200.Next, nil
}

// parseKey reads a key of ours; ok is false for others.
func parseKey(key string) (subject order.ID, operation string, ok bool) {
	id, operation, _ := strings.Cut(key, "-")
	for _, prefix := range []string{order.PrefixPayment, order.PrefixRefund} {
		if subject, ok = order.Parse(prefix, id); ok {
			break
		}
	}
	return subject, operation, ok
}

// call is a call with its payment.
type call verifydb.CallPageRow

func (c call) payment() string { return order.ID(c.PaymentID).Format(order.PrefixPayment) }

// key is that under which the provider has the call.
func (c call) key() string {
	prefix := order.PrefixPayment
	if c.Operation == refund {
		prefix = order.PrefixRefund
	}
	return order.ID(c.Subject).Format(prefix) + "-" + c.Operation
}

// succeeded tells what a definite call says.
func (c call) succeeded() bool {
	switch c.Operation {
	case authorize:
		return c.Authorized || c.Status == authorized || c.Status == captured || c.Status == voided
	case capture:
		return c.Status == captured
	case refund:
		return c.RefundStatus == "succeeded"
	}
	return true // a void that is refused is tried again
}

// listed tells whether the ledger must have the call. Amounts of 0 are not sent. Of an authorization that ended PAY_006 at its first try
// we do not know: it may not have been sent before its time was up.
func (c call) listed() bool {
	unsent := c.Operation == authorize && !c.succeeded() && c.FailureCode == string(errcode.PAY006) && c.Tries <= 1
	return c.Definite && c.Amount > 0 && !unsent
}

// checkProvider reads the provider's whole ledger. In flight may be: a call without a definite outcome, which the ledger has or has not;
// and entries that are younger than the snapshot.
//
// Memory is bounded: each entry is compared with its call, and the keys of the calls that must be listed are summed up on both sides. Only
// if the sums differ the ledger is asked about each payment.
func (s *scan) checkProvider(ctx context.Context) error {
	if s.ledger == nil {
		s.result.NotChecked = "no provider URL was given"
		return nil
	}
	if err := s.expect(ctx, s.CountCalls); err != nil {
		return err
	}
	owners, err := s.paymentOwners(ctx)
	if err != nil {
		return err
	}
	seed := maphash.MakeSeed()
	listed, required := keySum{seed: seed}, keySum{seed: seed}
	for after, more := int64(0), true; more; {
		entries, next, err := s.ledger.page(ctx, nil, after, min(2*s.PageSize, maxLedgerPage))
		if err != nil {
			return err
		}
		calls, err := s.callsOf(ctx, entries, owners)
		if err != nil {
			return err
		}
		for _, e := range entries {
			c, known := calls[e.Key]
			if known && c.listed() {
				listed.add(e.Key)
			}
			fault := s.compareEntry(e, c, known)
			if fault == "" {
				continue
			}
			if released, err := s.released(ctx, e, owners); err != nil {
				return err
			} else if !released {
				s.violationf(e.Key, "%s", fault)
			}
		}
		s.lookedAt(len(entries))
		if more = next != nil; more {
			after = *next
		}
	}
	if err = s.eachCall(ctx, func(c call) error {
		if c.listed() {
			required.add(c.key())
		}
		return nil
	}); err != nil || listed == required {
		return err
	}
	return s.nameMissing(ctx, required.n-listed.n)
}

// keySum is equal for equal sets of keys, in any order, and for others as improbably as two hashes are equal.
type keySum struct {
	seed maphash.Seed
	n    int64
	sum  uint64
}

func (k *keySum) add(key string) {
	k.n++
	k.sum += maphash.String(k.seed, key)
}

// compareEntry judges one entry of the ledger by its call, if we know one; the fault is empty if they fit. Keys that are not ours do not
// concern us, unless they moved money of a payment of ours.
func (s *scan) compareEntry(e psp.LedgerEntry, c call, known bool) (fault string) {
	succeeded := e.Status == psp.StatusSucceeded
	payment, kind := "", ""
	if e.Payment != nil {
		payment = *e.Payment
	}
	if e.Kind != nil {
		kind = string(*e.Kind)
	}
	if !known {
		_, _, oursByKey := parseKey(e.Key)
		_, oursByPayment := order.Parse(order.PrefixPayment, payment)
		if succeeded && (oursByKey || oursByPayment) && e.Sequence <= s.ledger.last {
			return "it succeeded at the provider, and we have no such call"
		}
		return ""
	}
	switch {
	case !c.Definite:
	case succeeded != c.succeeded():
		return fmt.Sprintf("it %s at the provider, and the payment of %s is %s", e.Status, orderName(c.OrderID), c.Status)
	case kind != "" && kind != c.Operation, payment != "" && payment != c.payment():
		return "the provider has another operation or payment under this key"
	case e.Amount != nil && (e.Amount.Amount != c.Amount || e.Amount.Currency != c.Currency):
		return fmt.Sprintf("it is of %d %s at the provider, and of %d %s here", e.Amount.Amount, e.Amount.Currency, c.Amount, c.Currency)
	case succeeded && e.Amount == nil:
		return "it succeeded at the provider without an amount"
	}
	return ""
}

// released tells that the money of an entry's payment is neither at the provider nor wanted here: the payment is failed, voided, about to
// be, or not known, and all that the provider had of it was voided or refunded. The sweep of the ledger leaves an orphan so.
func (s *scan) released(ctx context.Context, e psp.LedgerEntry, owners map[uint16][]order.Owner) (bool, error) {
	if e.Payment == nil {
		return false, nil
	}
	var at pay.Standing
	for after, more := int64(0), true; more; {
		entries, next, err := s.ledger.page(ctx, e.Payment, after, maxLedgerPage)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if e.Status == psp.StatusSucceeded && e.Kind != nil && e.Amount != nil {
				at = at.Add(string(*e.Kind), order.Money(*e.Amount))
			}
		}
		if more = next != nil; more {
			after = *next
		}
	}
	if at.Held() != 0 || at.Charged() != 0 {
		return false, nil
	}
	calls, err := s.callsOf(ctx, []psp.LedgerEntry{{Key: *e.Payment + "-" + authorize}, {Key: *e.Payment + "-" + void}}, owners)
	wanted := false
	for _, c := range calls {
		if c.Operation == void && !c.Definite {
			return true, err
		}
		wanted = wanted || c.Status != failed && c.Status != voided
	}
	return !wanted, err
}

// nameMissing reports the calls that the ledger does not have once. missing is how many more of them than entries there are.
func (s *scan) nameMissing(ctx context.Context, missing int64) error {
	errEnough := errors.New("enough are named")
	named := 0
	err := s.eachCall(ctx, func(c call) error {
		if !c.listed() {
			return nil
		}
		n, err := s.ledger.count(ctx, c)
		if err != nil || n == 1 {
			return err
		}
		s.violationf(c.key(), "it has a definite outcome, and the provider's ledger has it %d times", n)
		if named++; named == maxShown {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		s.addUnlisted(missing, named)
		return nil
	}
	if err == nil && named == 0 {
		s.violationf("ledger", "its entries in their order are not those that it shows of each payment: %d fewer", missing)
	}
	return err
}

// count returns how many entries a call has. That of a key that was cancelled before its request came names no payment: such a key is asked
// about itself.
func (l *ledger) count(ctx context.Context, c call) (n int, err error) {
	payment := c.payment()
	for after, more := int64(0), true; more; {
		entries, next, err := l.page(ctx, &payment, after, maxLedgerPage)
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			if e.Key == c.key() {
				n++
			}
		}
		if more = next != nil; more {
			after = *next
		}
	}
	if n > 0 || c.succeeded() {
		return n, nil
	}
	res, err := l.client.GetOperationWithResponse(ctx, c.key())
	if err != nil {
		return 0, fmt.Errorf("cannot read the provider's operation: %w", err)
	}
	if res.JSON200 != nil && res.JSON200.Key == c.key() {
		n = 1
	}
	return n, nil
}

// eachCall walks over all calls.
func (s *scan) eachCall(ctx context.Context, each func(call) error) error {
	return pages(s.PageSize, verifydb.CallPageRow{}, func(after verifydb.CallPageRow) ([]verifydb.CallPageRow, error) {
		return s.CallPage(ctx, verifydb.CallPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterSubject: after.Subject, AfterOperation: after.Operation, PageSize: s.PageSize,
		})
	}, func(rows []verifydb.CallPageRow) error {
		for _, row := range rows {
			if row.Marker {
				continue
			}
			if err := each(call(row)); err != nil {
				return err
			}
		}
		return nil
	})
}

// paymentOwners returns the accounts and modes that have payments, by the part of the account that is in their ids.
func (s *scan) paymentOwners(ctx context.Context) (map[uint16][]order.Owner, error) {
	owners, last := map[uint16][]order.Owner{}, verifydb.NextPaymentOwnerParams{}
	for {
		row, err := s.NextPaymentOwner(ctx, last)
		if errors.Is(err, pgx.ErrNoRows) {
			return owners, nil
		}
		if err != nil {
			return nil, err
		}
		last = verifydb.NextPaymentOwnerParams{AfterAccount: row.Account, AfterMode: row.Mode}
		bucket := uint16(row.Account) & 0x0fff
		owners[bucket] = append(owners[bucket], order.Owner{Account: row.Account, Mode: row.Mode})
	}
}

// callsOf returns the calls that a page of the ledger is about, by their keys.
func (s *scan) callsOf(ctx context.Context, entries []psp.LedgerEntry, owners map[uint16][]order.Owner) (map[string]call, error) {
	var p verifydb.CallsOfSubjectsParams
	for _, e := range entries {
		subject, operation, ours := parseKey(e.Key)
		if !ours {
			continue
		}
		bucket := uint16(subject[6]&0x0f)<<8 | uint16(subject[7])
		for _, owner := range owners[bucket] {
			p.Accounts, p.Modes = append(p.Accounts, owner.Account), append(p.Modes, owner.Mode)
			p.Subjects, p.Operations = append(p.Subjects, uuid.UUID(subject)), append(p.Operations, operation)
		}
	}
	rows, err := s.CallsOfSubjects(ctx, p)
	calls := make(map[string]call, len(rows))
	for _, row := range rows {
		c := call(row)
		calls[c.key()] = c
	}
	return calls, err
}
