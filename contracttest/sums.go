package contracttest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// amount is the number of a money value.
func amount(v any) (n int64, currency string, ok bool) {
	o, _ := v.(map[string]any)
	number, isNumber := o["amount"].(json.Number)
	currency, _ = o["currency"].(string)
	n, err := strconv.ParseInt(number.String(), 10, 64)
	return n, currency, isNumber && err == nil
}

// checkSums: the lines give the subtotal, their discounts the discount, and all of it the total, in one currency.
func (s *suite) checkSums(o map[string]any, at string, wrong wrongFact) {
	total, currency, priced := amount(o["total"])
	lines, isList := o["lines"].([]any)
	if !priced || !isList {
		return
	}
	sums := map[string]int64{}
	for _, name := range []string{"subtotal", "discount", "shipping", "tax", "total"} {
		n, other, ok := amount(o[name])
		sums[name] = n
		wrong(!ok || other != currency, at+"/"+name, "is not an amount in %s", currency)
	}
	var costs, discounts int64
	customer, isOrder := o["customer_ref"].(string)
	ofRun := !isOrder || strings.HasPrefix(customer, s.ref) // an older order may have an older price
	for i, l := range lines {
		line, _ := l.(map[string]any)
		quantity, _ := line["quantity"].(json.Number)
		pieces, _ := quantity.Int64()
		each, lineCurrency, _ := amount(line["unit_price"])
		cost, _, hasTotal := amount(line["total"])
		discount, _, _ := amount(line["discount"])
		if !hasTotal { // an event's line
			cost = each * pieces
		}
		here := fmt.Sprintf("%s/lines/%d", at, i)
		wrong(cost != each*pieces || lineCurrency != currency, here+"/total", "is %d, and %d pieces cost %d", cost, pieces, each*pieces)
		wrong(discount < 0 || discount > cost, here+"/discount", "is %d of %d", discount, cost)
		costs, discounts = costs+cost, discounts+discount
		sku, _ := line["sku"].(string)
		name, _ := line["name"].(string)
		known := ofRun && s.facts.skus[sku]
		wrong(known && !s.facts.names[sku+"\n"+name], here+"/name", "is %q, and the catalogue never called %s so", name, sku)
		price := fmt.Sprint(sku, "\n", each, "\n", lineCurrency)
		wrong(known && !s.facts.names[price], here+"/unit_price", "is %d %s, and the catalogue never had %s at that", each, lineCurrency, sku)
	}
	wrong(sums["subtotal"] != costs, at+"/subtotal", "is %d, and the lines cost %d", sums["subtotal"], costs)
	wrong(sums["discount"] != discounts, at+"/discount", "is %d, and those of the lines are %d", sums["discount"], discounts)
	wrong(total != costs-discounts+sums["shipping"]+sums["tax"], at+"/total", "is %d and not %d - %d + %d + %d", total, costs, discounts, sums["shipping"], sums["tax"])
}

func (f *facts) learnProduct(o map[string]any) {
	sku, _ := o["sku"].(string)
	name, _ := o["name"].(string)
	f.skus[sku], f.names[sku+"\n"+name] = true, true
	prices, _ := o["prices"].([]any)
	for _, p := range prices {
		n, currency, _ := amount(p)
		f.names[fmt.Sprint(sku, "\n", n, "\n", currency)] = true
	}
}
