package order

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	apierr "github.com/ordergate/ordergate/errors"
	"github.com/ordergate/ordergate/gen/errcode"
	"github.com/ordergate/ordergate/internal/rfc3339"
)

var (
	ids  = NewIDs([]byte("a key"))
	noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)
)

func recorder() Recorder {
	return Recorder{NewID: func() ID { return ids.Mint(noon, 7) }, Now: noon, Cause: Cause{TraceID: "t", Operation: "placeOrder", Actor: "key_1"}}
}

func lamp() *Product {
	return &Product{Name: "Lamp", Active: true, Prices: map[string]int64{"EUR": 1999}}
}

func place(t *testing.T) (*Order, []Event) {
	t.Helper()
	o, events, err := Place(ids.Mint(noon, 7), Draft{
		Currency: "EUR", CustomerRef: "c", WithPayment: true, Lines: []DraftLine{{SKU: "LAMP", Quantity: 2, Product: lamp()}},
	}, recorder())
	if err != nil {
		t.Fatal(err)
	}
	return o, events
}

func TestPlaceRefusals(t *testing.T) {
	line := func(change func(*DraftLine)) DraftLine {
		l := DraftLine{SKU: "LAMP", Quantity: 2, Product: lamp()}
		change(&l)
		return l
	}
	same := func(*DraftLine) {}
	for _, c := range []struct {
		name    string
		lines   []DraftLine
		code    errcode.Code
		pointer string
	}{
		{"the same sku twice", []DraftLine{line(same), line(same)}, errcode.ORD003, "/lines/1/sku"},
		{"an expectation in another currency", []DraftLine{line(func(l *DraftLine) { l.Expected = &Money{1999, "CNY"} })}, errcode.ORD005, "/lines/0/expected_unit_price/currency"},
		{"an unknown sku", []DraftLine{line(func(l *DraftLine) { l.Product = nil })}, errcode.CAT005, "/lines/0/sku"},
		{"an inactive product", []DraftLine{line(func(l *DraftLine) { l.Product.Active = false })}, errcode.CAT003, "/lines/0/sku"},
		{"no price in the currency", []DraftLine{line(func(l *DraftLine) { l.Product.Prices = nil })}, errcode.CAT004, "/lines/0/sku"},
		{"another price than expected", []DraftLine{line(func(l *DraftLine) { l.Expected = &Money{1, "EUR"} })}, errcode.ORD004, "/lines/0/expected_unit_price"},
		{"a total above the limit", []DraftLine{line(func(l *DraftLine) { l.Product.Prices["EUR"] = MaxTotal/2 + 1 })}, errcode.ORD008, "/lines/0/quantity"},
		{"a price that would overflow", []DraftLine{line(func(l *DraftLine) { l.Product.Prices["EUR"], l.Quantity = 1<<62, 10000 })}, errcode.ORD008, "/lines/0/quantity"},
		{"the same sku three times", []DraftLine{line(same), line(same), line(same)}, errcode.ORD003, "/lines/1/sku /lines/2/sku"},
		{"two unknown skus beside an inactive one", []DraftLine{
			line(func(l *DraftLine) { l.Product = nil }), line(func(l *DraftLine) { l.SKU, l.Product.Active = "B", false }),
			line(func(l *DraftLine) { l.SKU, l.Product = "C", nil }),
		}, errcode.CAT005, "/lines/0/sku /lines/2/sku"},
		{"two expectations in another currency", []DraftLine{
			line(func(l *DraftLine) { l.Expected = &Money{1999, "CNY"} }), line(func(l *DraftLine) { l.SKU, l.Expected = "B", &Money{1999, "CNY"} }),
		}, errcode.ORD005, "/lines/0/expected_unit_price/currency /lines/1/expected_unit_price/currency"},
		{"two prices that were not expected", []DraftLine{
			line(func(l *DraftLine) { l.Expected = &Money{1, "EUR"} }), line(func(l *DraftLine) { l.SKU, l.Expected = "B", &Money{2, "EUR"} }),
		}, errcode.ORD004, "/lines/0/expected_unit_price /lines/1/expected_unit_price"},
	} {
		t.Run(c.name+" is refused with "+string(c.code), func(t *testing.T) {
			o, events, err := Place(ids.Mint(noon, 7), Draft{Currency: "EUR", Lines: c.lines}, recorder())
			e, ok := errors.AsType[*apierr.Error](err)
			if !ok || e.Code != c.code {
				t.Fatalf("got %v", err)
			}
			var pointers []string
			for _, fault := range e.Faults {
				pointers = append(pointers, fault.Pointer)
			}
			if got := strings.Join(pointers, " "); got != c.pointer {
				t.Errorf("at %s", got)
			}
			if o != nil || events != nil {
				t.Error("a refusal made an order")
			}
		})
	}
}

func TestPlaceTakesPricesOfTheMoment(t *testing.T) {
	o, events := place(t)
	if o.Status != StatusPending || o.Version != 1 || o.Total != (Money{3998, "EUR"}) || o.Lines[0].Total() != (Money{3998, "EUR"}) || len(events) != 1 {
		t.Errorf("%+v", o)
	}
	if !o.CreatedAt.Equal(noon.Truncate(time.Microsecond)) {
		t.Errorf("created at %v: times are cut to microseconds", o.CreatedAt)
	}
}

func TestCancel(t *testing.T) {
	final := func(d Data) func(*Order) { return func(o *Order) { o.Record(recorder(), d) } }
	for _, c := range []struct {
		name    string
		before  func(*Order)
		capture bool
		events  int
		code    errcode.Code
	}{
		{"a pending order is asked to be cancelled", func(*Order) {}, false, 1, ""},
		{"a second request is no second event", final(CancelRequested{}), false, 0, ""},
		{"a running capture is ORD_009", func(*Order) {}, true, 0, errcode.ORD009},
		{"a cancelled order is ORD_007", final(Cancelled{}), false, 0, errcode.ORD007},
		{"a rejected order is ORD_002", final(Rejected{Rejection{Code: "PAY_007"}}), false, 0, errcode.ORD002},
		{"a confirmed order is asked to be cancelled", final(Confirmed{}), false, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _ := place(t)
			c.before(o)
			events, err := o.RequestCancel(recorder(), "changed my mind", c.capture)
			if len(events) != c.events {
				t.Errorf("%d events", len(events))
			}
			if e, _ := errors.AsType[*apierr.Error](err); c.code == "" && err != nil || c.code != "" && (e == nil || e.Code != c.code) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// anything is any event: the fold does not check which event follows which.
func anything(r *rand.Rand) Data {
	all := []Data{
		Updated{PaymentStatus: PaymentStatusAuthorized}, Updated{Metadata: map[string]string{}, ShippingAddressChanged: true}, Updated{Metadata: map[string]string{"a": "b"}},
		StockReserved{rfc3339.New(noon.Add(time.Hour))}, StockRejected{[]ShortSKU{{"LAMP", 2, 1}}}, PaymentFailed{"PAY_007", "no"},
		Paid{"pay_1", Money{1, "EUR"}}, Confirmed{}, CancelRequested{"x"}, Refunded{"ref_1", Money{1, "EUR"}}, Cancelled{}, Rejected{Rejection{Code: "PAY_007", DeclineReason: "no"}},
		Shipped{"shp_1", []ShipmentLine{{"LAMP", 1}}, FulfillmentStatusPartial}, Delivered{"shp_1", FulfillmentStatusDelivered}, Completed{},
	}
	return all[r.IntN(len(all))]
}

func FuzzFoldEqualsApplyingLive(f *testing.F) {
	f.Add(uint64(1), uint8(9))
	f.Add(uint64(2), uint8(40))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		o, events := place(t)
		for range n {
			events = append(events, o.Record(recorder(), anything(r)))
		}
		if err := Verify(o.ID, events); err != nil {
			t.Fatal(err)
		}
		folded, err := Fold(o.ID, events, nil)
		if err != nil {
			t.Fatal(err)
		}
		stored, _ := json.Marshal(o)
		again := &Order{ID: o.ID, Version: o.Version, HeadHash: o.HeadHash}
		if err = json.Unmarshal(stored, again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(o, folded) || !reflect.DeepEqual(folded, again) {
			t.Errorf("live   %+v\nfolded %+v\nstored   %+v", o, folded, again)
		}
	})
}

func TestTamperedHistoryIsNoticed(t *testing.T) {
	o, events := place(t)
	for range 4 {
		events = append(events, o.Record(recorder(), Confirmed{}))
	}
	for name, tamper := range map[string]func([]Event) []Event{
		"a changed payload": func(e []Event) []Event {
			e[0].Payload = []byte(strings.Replace(string(e[0].Payload), "1999", "1", 1))
			return e
		},
		"a dropped event":    func(e []Event) []Event { return append(e[:2:2], e[3:]...) },
		"two events swapped": func(e []Event) []Event { e[1], e[2] = e[2], e[1]; return e },
		"another actor":      func(e []Event) []Event { e[3].Cause.Actor = "someone"; return e },
		"another instant":    func(e []Event) []Event { e[3].At = e[3].At.Add(time.Microsecond); return e },
		"another order":      func(e []Event) []Event { e[0].Hash = e[0].chain(slices.Repeat([]byte{8}, 16)); return e },
	} {
		if Verify(o.ID, tamper(append([]Event{}, events...))) == nil {
			t.Errorf("%s went unnoticed", name)
		}
	}
}

// The check of an id is HMAC-SHA-256, as it was when the first ids were given out, whatever the length of the key.
func TestTheCheckOfAnIDIsAnHMAC(t *testing.T) {
	for _, length := range []int{0, 5, 32, sha256.BlockSize, sha256.BlockSize + 1, 200} {
		key := bytes.Repeat([]byte{0xa7}, length)
		id := NewIDs(key).Mint(noon, 7)
		mac := hmac.New(sha256.New, key)
		mac.Write(id[:checkAt])
		if want := mac.Sum(nil)[:len(id)-checkAt]; !bytes.Equal(id[checkAt:], want) {
			t.Errorf("key of %d bytes: % x, want % x", length, id[checkAt:], want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ids.Genuine(ID{}) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIDs(t *testing.T) {
	id := ids.Mint(noon, 0x1234)
	if !ids.Genuine(id) || NewIDs([]byte("another key")).Genuine(id) {
		t.Error("the check must be ours alone")
	}
	for i := range id {
		forged := id
		forged[i] ^= 1
		if ids.Genuine(forged) {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
	if id[6]>>4 != 7 || id[8]>>6 != 2 || id[6]&0x0f != 0x2 || id[7] != 0x34 {
		t.Errorf("% x is not a UUIDv7 with bucket 0x234", id)
	}
	if !id.Time().Equal(noon.Truncate(time.Millisecond)) {
		t.Error(id.Time())
	}
	text := id.Format(PrefixOrder)
	if back, ok := Parse(PrefixOrder, text); !ok || back != id {
		t.Error("cannot read back", text)
	}
	for _, bad := range []string{"", "ord_", text[:35], text + "0", strings.ToUpper(text), "pay_" + text[4:], strings.Replace(text, "0", "g", 1)} {
		if _, ok := Parse(PrefixOrder, bad); ok {
			t.Errorf("%q was read", bad)
		}
	}
	later := ids.Mint(noon.Add(time.Millisecond), 1)
	if later.Format("") <= id.Format("") {
		t.Error("ids must sort by time")
	}
	for b := range 256 {
		good := strings.ContainsRune("0123456789abcdef", rune(b))
		for _, at := range []int{0, 1, 31} {
			digits := []byte(strings.Repeat("7", 32))
			digits[at] = byte(b)
			got, ok := Parse(PrefixOrder, PrefixOrder+string(digits))
			if ok != good || ok && got.Format(PrefixOrder) != PrefixOrder+string(digits) || !ok && !got.IsZero() {
				t.Errorf("%q: %v %v", digits, got, ok)
			}
		}
	}
}
