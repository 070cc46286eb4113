package verify

import (
	"context"
	"errors"
	"fmt"
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
	ledgerPage = 1000             // entries, the contract's most
	askLimit   = 30 * time.Second // of one request
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

// callKey identifies a call by the key under which the provider has it.
type callKey struct {
	prefix    string
	subject   order.ID // of a refund or payment
	operation string
}

func (k callKey) String() string { return k.subject.Format(k.prefix) + "-" + k.operation }

// parseKey reads a key of ours; ok is false for others.
func parseKey(key string) (k callKey, ok bool) {
	id, operation, _ := strings.Cut(key, "-")
	k.operation = operation
	for _, k.prefix = range []string{order.PrefixPayment, order.PrefixRefund} {
		if k.subject, ok = order.Parse(k.prefix, id); ok {
			break
		}
	}
	return k, ok
}

// call is a call with its payment.
type call verifydb.CallPageRow

func (c call) key() callKey {
	if c.Operation == refund {
		return callKey{order.PrefixRefund, order.ID(c.Subject), c.Operation}
	}
	return callKey{order.PrefixPayment, order.ID(c.Subject), c.Operation}
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
// Memory is bounded: an entry is compared with its call, and the matches are counted. Only if there are more calls than matches, the
// ledger is asked about each payment.
func (s *scan) checkProvider(ctx context.Context) error {
	if s.ledger == nil {
		s.result.NotChecked = "no provider URL was given"
		return nil
	}
	owners, err := s.paymentOwners(ctx)
	if err != nil {
		return err
	}
	matched := 0
	for after, more := int64(0), true; more; {
		entries, next, err := s.ledger.page(ctx, nil, after, ledgerPage)
		if err != nil {
			return err
		}
		calls, err := s.callsOf(ctx, entries, owners)
		if err != nil {
			return err
		}
		for _, e := range entries {
			key, ours := parseKey(e.Key)
			if !ours {
				continue
			}
			c, known := calls[key]
			if known && c.listed() {
				matched++
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
		s.looked(len(entries))
		if more = next != nil; more {
			after = *next
		}
	}
	missing := -matched
	err = s.calls(ctx, func(c call) error {
		if c.listed() {
			missing++
		}
		return nil
	})
	if err != nil || missing <= 0 {
		return err
	}
	return s.nameMissing(ctx, missing)
}

// compareEntry judges one entry of the ledger by its call. fault is empty if they fit.
func (s *scan) compareEntry(e psp.LedgerEntry, c call, known bool) (fault string) {
	switch {
	case !known && e.Status == psp.StatusSucceeded && e.Sequence <= s.ledger.last:
		return "it succeeded at the provider, and we have no such call"
	case !known || !c.Definite:
		return ""
	case e.Status == psp.StatusSucceeded != c.succeeded():
		return fmt.Sprintf("it %s at the provider, and the payment of %s is %s", e.Status, orderName(c.OrderID), c.Status)
	case e.Kind != nil && string(*e.Kind) != c.Operation, e.Payment != nil && *e.Payment != order.ID(c.PaymentID).Format(order.PrefixPayment):
		return "the provider has another operation or payment under this key"
	case e.Amount != nil && (e.Amount.Amount != c.Amount || e.Amount.Currency != c.Currency):
		return fmt.Sprintf("it is of %d %s at the provider, and of %d %s here", e.Amount.Amount, e.Amount.Currency, c.Amount, c.Currency)
	case e.Status == psp.StatusSucceeded && e.Amount == nil:
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
		entries, next, err := s.ledger.page(ctx, e.Payment, after, ledgerPage)
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

// nameMissing reports the calls that the ledger does not have.
func (s *scan) nameMissing(ctx context.Context, missing int) error {
	errEnough := errors.New("enough are named")
	shown := 0
	err := s.calls(ctx, func(c call) error {
		if !c.listed() {
			return nil
		}
		payment := order.ID(c.PaymentID).Format(order.PrefixPayment)
		entries, _, err := s.ledger.page(ctx, &payment, 0, ledgerPage)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Key == c.key().String() {
				return nil
			}
		}
		s.violationf(c.key().String(), "it has a definite outcome, and the provider's ledger does not have it")
		if shown++; shown == missing || shown == maxShown {
			return errEnough
		}
		return nil
	})
	s.unshown(int64(missing), shown)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// calls walks over all calls.
func (s *scan) calls(ctx context.Context, each func(call) error) error {
	return pages(verifydb.CallPageRow{}, func(after verifydb.CallPageRow) ([]verifydb.CallPageRow, error) {
		return s.CallPage(ctx, verifydb.CallPageParams{
			AfterAccount: after.Account, AfterMode: after.Mode, AfterSubject: after.Subject, AfterOperation: after.Operation, PageSize: pageSize,
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

// callsOf returns the calls that a page of the ledger is about.
func (s *scan) callsOf(ctx context.Context, entries []psp.LedgerEntry, owners map[uint16][]order.Owner) (map[callKey]call, error) {
	var p verifydb.CallsOfSubjectsParams
	for _, e := range entries {
		key, ours := parseKey(e.Key)
		if !ours {
			continue
		}
		bucket := uint16(key.subject[6]&0x0f)<<8 | uint16(key.subject[7])
		for _, owner := range owners[bucket] {
			p.Accounts, p.Modes = append(p.Accounts, owner.Account), append(p.Modes, owner.Mode)
			p.Subjects, p.Operations = append(p.Subjects, uuid.UUID(key.subject)), append(p.Operations, key.operation)
		}
	}
	rows, err := s.CallsOfSubjects(ctx, p)
	calls := make(map[callKey]call, len(rows))
	for _, row := range rows {
		c := call(row)
		calls[c.key()] = c
	}
	return calls, err
}
