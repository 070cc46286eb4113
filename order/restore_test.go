package order

import (
	"encoding/json"
	"fmt"
	"testing"
)

// BenchmarkRestore is what each read of an order from a database, and each command, does with its row; the standard library's decoder beside it.
func BenchmarkRestore(b *testing.B) {
	o := Order{Status: StatusConfirmed, Currency: "EUR", CustomerRef: "cus_1", Metadata: map[string]string{"channel": "web"}}
	for i := range 3 {
		o.Lines = append(o.Lines, Line{SKU: fmt.Sprint("LAMP-", i), Name: "Desk lamp, black", Quantity: 2, UnitPrice: Money{Amount: 4990, Currency: "EUR"}})
	}
	state, err := json.Marshal(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Restore(ID{}, 1, nil, state); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(state, &Order{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
