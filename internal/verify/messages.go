package verify

import (
	"context"
	"math"
	"time"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/gen/verifydb"
)

// checkMessages compares the events with the outbox and the inbox. In flight may be a message that all consumers have handled: the relay
// deletes the messages of a page together. Such messages are looked at again, outside the snapshot, until the relay's time is up.
// A parked message counts as handled.
func (s *scan) checkMessages(ctx context.Context) error {
	n, err := s.CountRecentEvents(ctx)
	if err != nil {
		return err
	}
	s.looked(int(n))
	lost, err := s.UnpublishedEvents(ctx, verifydb.UnpublishedEventsParams{Consumers: s.Consumers[command.TopicOrders], PageSize: maxShown})
	if err != nil {
		return err
	}
	for i, row := range lost {
		s.violationf(orderName(row.OrderID), "its event %s was not published and is not in the outbox", row.ID)
		if i == 0 {
			s.unshown(row.Total, len(lost))
		}
	}
	var handled []int64
	names := map[int64]string{}
	err = pages(verifydb.WaitingPageRow{ID: math.MinInt64}, func(after verifydb.WaitingPageRow) ([]verifydb.WaitingPageRow, error) {
		return s.WaitingPage(ctx, verifydb.WaitingPageParams{AfterID: after.ID, PageSize: pageSize})
	}, func(rows []verifydb.WaitingPageRow) error {
		for _, row := range rows {
			consumers := len(s.Consumers[row.Topic])
			switch {
			case consumers == 0:
				s.violationf(row.Key, "its message %s waits for topic %s, which nobody consumes", row.MessageID, row.Topic)
			case row.Handled >= int64(consumers):
				handled, names[row.ID] = append(handled, row.ID), row.Key
			}
		}
		s.looked(len(rows))
		return nil
	})
	if err != nil {
		return err
	}
	if handled, err = s.stillWaiting(ctx, handled); err != nil {
		return err
	}
	for _, id := range handled {
		s.violationf(names[id], "its message %d was handled by all consumers and is still in the outbox", id)
	}
	return nil
}

// stillWaiting returns those of the messages that are in the outbox until a relay's page must be over.
func (s *scan) stillWaiting(ctx context.Context, ids []int64) (_ []int64, err error) {
	now := verifydb.New(s.Pool)
	for end, tick := s.begin.Add(s.RelayPage), time.Tick(20*time.Millisecond); len(ids) > 0; {
		if ids, err = now.StillWaiting(ctx, ids); err != nil || len(ids) == 0 || time.Now().After(end) {
			return ids, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick:
		}
	}
	return nil, nil
}
