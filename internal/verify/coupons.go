package verify

import "context"

// checkCoupons compares coupons with their redemptions, and these with the orders. Nothing may be in flight: an order uses and frees its
// coupon in the transaction that places or ends it.
func (s *scan) checkCoupons(ctx context.Context) error {
	n, err := s.CountRedemptions(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(n))
	wrong, err := s.WrongCoupons(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range wrong {
		if row.Coupons == 0 {
			s.violationf(row.Code, "%d orders use it, and account %d has no such coupon in %s mode", row.Redemptions, row.Account, row.Mode)
		} else {
			s.violationf(row.Code, "it counts %d uses, and %d orders of account %d use it in %s mode", row.Used, row.Redemptions, row.Account, row.Mode)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(wrong))
		}
	}
	rows, err := s.OrdersWithoutRedemption(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if row.Orders == 0 {
			s.violationf(orderName(row.OrderID), "it holds a use of coupon %s that is not its own", row.Code)
		} else {
			s.violationf(orderName(row.OrderID), "its use of coupon %s is not stored", row.Code)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	return nil
}

// checkReferences compares the orders' references with their rows. Nothing may be in flight: both are written in one transaction.
func (s *scan) checkReferences(ctx context.Context) error {
	n, err := s.CountReferences(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(n))
	rows, err := s.OrdersWithoutReference(ctx, maxShown)
	if err != nil {
		return err
	}
	for i, row := range rows {
		if row.Orders == 0 {
			s.violationf(orderName(row.OrderID), "reference %s is kept for it, and it has not that reference", row.Reference)
		} else {
			s.violationf(orderName(row.OrderID), "its reference %s is not kept: another order may take it", row.Reference)
		}
		if i == 0 {
			s.addUnlisted(row.Total, len(rows))
		}
	}
	return nil
}
