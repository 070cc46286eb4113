package verify

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/verifydb"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/order"
)

// maxHandled bounds how many messages that all consumers handled are looked for again: a relay's page has 1,000 of them at most.
const maxHandled = 20_000

// checkMessages compares the events with the outbox and the inbox, and the outbox with the orders. In flight may be a message that all
// consumers have handled: the relay deletes the messages of a page together, and after a crash the next relay does. Such messages are
// looked at again, outside the snapshot, until the relay's time is up. A message that was parked counts as handled.
func (s *scan) checkMessages(ctx context.Context) error {
	n, err := s.CountRecentEvents(ctx)
	if err != nil {
		return err
	}
	s.lookedAt(int(n))
	lost, err := s.UnpublishedEvents(ctx, verifydb.UnpublishedEventsParams{Consumers: s.Consumers[command.TopicOrders], PageSize: maxShown})
	if err != nil {
		return err
	}
	for i, row := range lost {
		s.violationf(orderName(row.OrderID), "its event %s was not published and is not in the outbox", order.ID(row.ID).Format(order.PrefixEvent))
		if i == 0 {
			s.addUnlisted(row.Total, len(lost))
		}
	}
	var handled []int64 // ids of the outbox
	if err = pages(s.PageSize, verifydb.WaitingPageRow{ID: math.MinInt64}, func(after verifydb.WaitingPageRow) ([]verifydb.WaitingPageRow, error) {
		return s.WaitingPage(ctx, verifydb.WaitingPageParams{AfterID: after.ID, PageSize: s.PageSize})
	}, func(rows []verifydb.WaitingPageRow) error {
		for _, row := range rows {
			if len(handled) < maxHandled && len(s.Consumers[row.Topic]) > 0 && containsAll(row.Consumers, s.Consumers[row.Topic]) {
				handled = append(handled, row.ID)
			}
		}
		s.lookedAt(len(rows))
		return s.checkWaiting(ctx, rows)
	}); err != nil {
		return err
	}
	waiting, err := s.stillWaiting(ctx, handled)
	for _, row := range waiting {
		s.violationf(row.Key, "its message %s was handled by all consumers and is still in the outbox", row.MessageID)
	}
	return err
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(name string) bool { return !slices.Contains(all, name) })
}

// checkWaiting reports messages in the outbox that no consumer will handle as they are.
func (s *scan) checkWaiting(ctx context.Context, rows []verifydb.WaitingPageRow) error {
	var refs orderRefs
	about := make([]order.Ref, len(rows)) // zero: reported already
	for i, row := range rows {
		e, err := outbox.Open([]byte(row.Payload))
		var fault string
		switch {
		case err != nil:
			fault = err.Error()
		case len(s.Consumers[row.Topic]) == 0:
			fault = fmt.Sprintf("nobody consumes topic %q", row.Topic)
		case e.ID != row.MessageID || e.OrderID != row.Key:
			fault = fmt.Sprintf("its envelope is message %s of %s", e.ID, e.OrderID)
		case e.Ref().ID.Shard() != row.Shard:
			fault = fmt.Sprintf("it is in shard %d instead of %d", row.Shard, e.Ref().ID.Shard())
		default:
			about[i] = e.Ref()
			refs.add(about[i])
			continue
		}
		s.violationf(row.Key, "its message %s waits in the outbox: %s", row.MessageID, fault)
	}
	found, err := s.ExistingOrders(ctx, verifydb.ExistingOrdersParams(refs))
	if err != nil {
		return err
	}
	exists := map[order.Ref]bool{}
	for _, row := range found {
		exists[order.RefOf(row.Account, row.Mode, row.ID)] = true
	}
	for i, row := range rows {
		if about[i] != (order.Ref{}) && !exists[about[i]] {
			s.violationf(row.Key, "its message %s waits in the outbox: there is no such order", row.MessageID)
		}
	}
	return nil
}

// stillWaiting returns those of the messages that stay in the outbox until a relay must have deleted them.
func (s *scan) stillWaiting(ctx context.Context, ids []int64) ([]verifydb.StillWaitingRow, error) {
	now := verifydb.New(s.Pool)
	for end, tick := s.begin.Add(s.OutboxLimit), time.Tick(100*time.Millisecond); len(ids) > 0; {
		rows, err := now.StillWaiting(ctx, ids)
		if err != nil || time.Now().After(end) {
			return rows, err
		}
		ids = ids[:0]
		for _, row := range rows {
			ids = append(ids, row.ID)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick:
		}
	}
	return nil, nil
}
