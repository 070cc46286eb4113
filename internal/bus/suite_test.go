package bus_test

import (
	"testing"

	"go.uber.org/zap"

	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/bus/bustest"
)

func openLanes(*testing.T) bustest.Transport {
	l := bus.NewLanes(nil, zap.NewNop())
	return bustest.Transport{Publisher: l, Subscriber: l, Keys: l.Keys, Reopen: openLanes}
}

func TestLanesSuite(t *testing.T) { bustest.Run(t, openLanes) }
