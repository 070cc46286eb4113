package app

import (
	"testing"

	"github.com/ordergate/ordergate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
