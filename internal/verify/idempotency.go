package verify

import (
	"context"

	"github.com/ordergate/ordergate/gen/verifydb"
)

// checkIdempotency compares the orders with the stored results of placeOrder, what other operations made with their results, and the
// results of all operations with the orders. Nothing may be in flight: what an operation makes and its key are written in one transaction.
func (s *scan) checkIdempotency(ctx context.Context) error {
	keys, err := s.CountKeys(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(keys))
	rows, err := s.OrdersWithoutOneKey(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if row.Orders == 0 {
			s.violationf("placeOrder", "%d keys have a result without an order", row.Keys)
		} else {
			s.violationf(orderName(row.OrderID), "%d keys have its result instead of one", row.Keys)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	if err = orphans(ctx, s, "a key has its result, and there is no such order", s.KeysWithoutOrder); err != nil {
		return err
	}
	results, err := s.ResultsWithoutOneKey(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range results {
		s.compareResult(row)
		if i == 0 {
			s.addUnlisted(row.Total, len(results))
		}
	}
	products, err := s.KeysWithoutProduct(ctx, maxShown)
	for i, row := range products {
		s.violationf(row.Location, "a key of createProduct has it as its result, and account %d has no such product in %s mode", row.Account, row.Mode)
		if i == 0 {
			s.addUnlisted(row.Total, len(products))
		}
	}
	return err
}

// compareResult reports what an operation made without exactly one key.
func (s *scan) compareResult(row verifydb.ResultsWithoutOneKeyRow) {
	switch {
	case row.Result == "":
		s.violationf(row.Operation, "%d keys have a result that names nothing", row.Keys)
	case row.Made == 0:
		s.violationf(row.Result, "a key of %s has it as its result, and no event of it says so", row.Operation)
	default:
		s.violationf(row.Result, "%d keys of %s have it as their result instead of one", row.Keys, row.Operation)
	}
}
