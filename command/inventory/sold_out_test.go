package inventory

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/pg"
	"github.com/ordergate/ordergate/order"
)

// commit takes commands as one batch. The function that it returns is what runs after the COMMIT.
func (f fixture) commit(commands ...sent) (after func()) {
	f.t.Helper()
	var h bus.Handled
	if err := pg.InPipeline(f.t.Context(), f.cfg.Pool, func(*pgx.Batch) {}, func(tx pgx.Tx, ends *pg.Ends) (err error) {
		h, err = f.Handle(f.t.Context(), tx, messages(commands), false)
		*ends = h.Ends
		return err
	}); err != nil {
		f.t.Error(err)
	}
	return h.After
}

// adjust moves the stock of A as the operation of the API does.
func (f fixture) adjust(delta int64) {
	f.t.Helper()
	if err := pg.InTx(f.t.Context(), f.cfg.Pool, func(tx pgx.Tx) error {
		stock, err := Lock(f.t.Context(), tx, []order.Item{item("A")}, false)
		if err != nil {
			return err
		}
		if err = stock[item("A")].Adjust(testRec, testRec.NewID(), delta, "counted"); err != nil {
			return err
		}
		if err = stock.Write(f.t.Context(), tx); err != nil {
			return err
		}
		f.cfg.SoldOut.Released(stock)
		return nil
	}); err != nil {
		f.t.Error(err)
	}
}

// short is what is known to be short of for an order of some pieces of A.
func (f fixture) short(quantity int64) string {
	return fmt.Sprint(f.cfg.SoldOut.Short(alice, []Line{{"A", quantity}, {"C", 1}}))
}

func reserveA(quantity int64) sent {
	return sent{Reserve, ids.Mint(time.Now(), 1), []Line{{"A", quantity}}}
}

func TestARefusedReservationMarksWhatIsLeft(t *testing.T) {
	t.Parallel()
	f := setup(t, 3)
	now := time.Now()
	f.cfg.SoldOut.now = func() time.Time { return now }
	held := reserveA(2)
	after := f.commit(held, reserveA(2), sent{Reserve, ids.Mint(now, 1), []Line{{"B", 1}, {"GONE", 1}}})
	if got := f.short(2); got != "[]" {
		t.Error("marked before the COMMIT: ", got)
	}
	after()
	const marked = "[{A 2 1}]"
	if got, fits := f.short(2), f.short(1); got != marked || fits != "[]" {
		t.Errorf("%s, and what is left: %s", got, fits)
	}
	if other := f.cfg.SoldOut.Short(order.Owner{Account: 2, Mode: "test"}, []Line{{"A", 2}}); other != nil {
		t.Error("another account's sku:", other)
	}
	if b := f.cfg.SoldOut.Short(alice, []Line{{"B", 100}, {"GONE", 1}}); b != nil {
		t.Error("a sku that was not short, and one without stock:", b)
	}
	f.commit(sent{kind: Confirm, id: held.id})() // what can be sold is as before
	if got := f.short(2); got != marked {
		t.Error("after a confirmation:", got)
	}
	now = now.Add(markTime - probeTime)
	if probe, got := f.short(2), f.short(2); probe != "[]" || got != marked {
		t.Errorf("near its end: %s, then %s", probe, got)
	}
	now = now.Add(probeEvery)
	if probe, got := f.short(2), f.short(2); probe != "[]" || got != marked {
		t.Errorf("later: %s, then %s", probe, got)
	}
	now = now.Add(probeTime - probeEvery)
	for range 3 {
		if got := f.short(2); got != "[]" {
			t.Error("after its time:", got)
		}
	}
}

func TestWhatComesBackEndsTheMark(t *testing.T) {
	t.Parallel()
	f := setup(t, 2)
	held := reserveA(2)
	for name, back := range map[string]func(){
		"a cancelled reservation": func() { f.commit(sent{kind: Cancel, id: held.id})() },
		"an expired reservation":  func() { f.commit(sent{kind: Expire, id: held.id})() },
		"a returned piece": func() {
			f.commit(sent{kind: Confirm, id: held.id})()
			f.commit(sent{kind: Cancel, id: held.id})()
		},
		"an adjustment": func() { f.adjust(1) },
	} {
		held = reserveA(2)
		f.commit(held, reserveA(1))()
		if f.short(1) == "[]" {
			t.Fatal(name, ": it is not marked")
		}
		seen := f.commit(reserveA(1)) // it is refused before the piece comes back, and its COMMIT is noticed late
		back()
		if got := f.short(1); got != "[]" {
			t.Error(name, ": ", got)
		}
		seen()
		if got := f.short(1); got != "[]" {
			t.Error(name, ": marked by what was seen before: ", got)
		}
		if name == "an adjustment" {
			f.adjust(-1)
			f.commit(sent{kind: Cancel, id: held.id})()
		}
	}
	f.adjust(-1)
	if got := f.short(1); got != "[]" {
		t.Error("an adjustment that takes pieces off marks nothing:", got)
	}
}

// TestAnOrderPassesOnlyIfAllOfItsSKUsLetIt: one that another sku refuses takes no turn of those that pass.
func TestAnOrderPassesOnlyIfAllOfItsSKUsLetIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := NewSoldOut(func() time.Time { return now })
	short := func(skus ...string) int {
		return len(s.Short(alice, pg.Column(skus, func(sku string) Line { return Line{sku, 1} })))
	}
	s.Heard(Mark{item("A"), 0})
	now = now.Add(markTime - probeTime)
	s.Heard(Mark{item("B"), 0})
	if n := short("A", "B"); n != 2 {
		t.Errorf("%d are short", n)
	}
	if n := short("A"); n != 0 {
		t.Error("the turn of A is taken")
	}
	if n := short("A"); n != 1 {
		t.Error("two pass")
	}
}

// TestNoMarkOutlivesARelease: while reservations are refused all the time, a piece that has come back can be ordered at once, each time.
func TestNoMarkOutlivesARelease(t *testing.T) {
	t.Parallel()
	f := setup(t, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f.commit(reserveA(2))() // never more than one is there
				}
			}
		})
	}
	marked := 0
	for range 100 {
		f.adjust(1)
		for range 20 {
			if got := f.short(1); got != "[]" {
				t.Error("a piece is there: ", got)
			}
		}
		f.adjust(-1)
		for end := time.Now().Add(markTime); time.Now().Before(end); {
			if f.short(1) != "[]" {
				marked++
				break
			}
		}
	}
	close(stop)
	wg.Wait()
	if marked < 50 {
		t.Errorf("marked only %d times of 100", marked)
	}
}

func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := NewSoldOut(func() time.Time { return now })
	fill := func(prefix string) (marked int) {
		for i := range 40_000 {
			it := item(fmt.Sprint(prefix, i))
			s.mark([]observation{s.observe(&Level{Item: it})})
			if s.Short(alice, []Line{{it.SKU, 1}}) != nil {
				marked++
			}
		}
		return marked
	}
	if n := fill("A"); n != markShards*maxMarks {
		t.Errorf("%d marks", n)
	}
	if n := fill("B"); n != 0 {
		t.Errorf("%d marks more", n)
	}
	now = now.Add(markTime)
	if n := fill("C"); n != markShards*maxMarks {
		t.Errorf("%d marks once the others are over", n)
	}
}

// TestAMarkOfAnotherProcess refuses for a mark's time, and not a piece that came back here since.
func TestAMarkOfAnotherProcess(t *testing.T) {
	t.Parallel()
	f, other := setup(t, 1), NewSoldOut(time.Now)
	now := time.Now()
	other.now = func() time.Time { return now }
	var told []Mark
	f.cfg.SoldOut.Tell = func(marks []Mark) { told = append(told, marks...) }
	held := reserveA(1)
	f.commit(held)()
	late := f.commit(reserveA(1))
	f.cfg.SoldOut.now = func() time.Time { return time.Now().Add(tellTime + time.Millisecond) }
	late()
	f.cfg.SoldOut.now = time.Now
	if told != nil {
		t.Fatal("told without a refusal: ", told)
	}
	f.commit(reserveA(1))()
	if len(told) != 1 || told[0] != (Mark{item("A"), 0}) {
		t.Fatal("told: ", told)
	}
	short := func() bool { return other.Short(alice, []Line{{"A", 1}}) != nil }
	other.Heard(told[0])
	if !short() {
		t.Error("not marked")
	}
	now = now.Add(markTime)
	if short() {
		t.Error("marked after its time")
	}
	other.Released(Stock{item("A"): &Level{Item: item("A"), onHandMoved: 1}})
	other.Heard(told[0])
	if short() {
		t.Error("marked by what may be of before the release")
	}
	now = now.Add(2 * markTime)
	if other.Heard(told[0]); !short() {
		t.Error("not marked any more")
	}
}
