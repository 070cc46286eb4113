package contracttest

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// goods are the products that the suite orders.
type goods struct {
	all     []api.Product // read so far
	next    *string       // the cursor of the next page
	main    api.Product   // active, with a price and enough stock
	price   api.Money     // its first
	side    *api.Product  // another one, priced in the same currency; nil: there is none
	sidePay api.Money
	stock   int64 // of main, when it was found
}

const (
	enough      = 20              // pieces in stock for the orders of a run and of a few runs beside it
	beyondStock = 1000            // more pieces than parallel runs give back meanwhile
	maxTotal    = 100_000_000_000 // of an order, in minor units: more is ORD_008
)

// find looks for something to order, once. Runs begin at different places of the catalogue, so that no product is sold out by
// being the first.
func (s *suite) find(ctx context.Context) (*goods, bool) {
	if s.goods != nil {
		if s.goods.main.Sku == "" {
			s.skipf("nothing can be ordered")
		}
		return s.goods, s.goods.main.Sku != ""
	}
	g := &goods{}
	s.goods = g
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(s.ref))
	for seen := 0; g.main.Sku == "" && s.readOn(ctx); seen = len(g.all) {
		page := g.all[seen:]
		for i := range page {
			s.consider(ctx, page[(i+int(hash.Sum32()%100))%len(page)])
		}
		if g.next == nil {
			break
		}
	}
	if g.main.Sku == "" {
		s.cannotf("nothing can be ordered: none of %d products is active and has a price and %d pieces in stock", len(g.all), enough)
	}
	return g, g.main.Sku != ""
}

// readOn reads a page of the catalogue, the largest that there is.
func (s *suite) readOn(ctx context.Context) bool {
	query := values("limit", "100")
	if s.goods.next != nil {
		query.Set("cursor", *s.goods.next)
	}
	var page api.ProductList
	_, ok := s.get(ctx, &page, call{op: "listProducts", query: query}, http.StatusOK)
	s.goods.all = append(s.goods.all, page.Data...)
	s.goods.next = page.NextCursor
	return ok
}

// consider takes a product as the main or the side one if that is missing and enough of it is in stock.
func (s *suite) consider(ctx context.Context, p api.Product) {
	g := s.goods
	price, ok := sold(p, g.price.Currency)
	if !p.Active || !ok || g.side != nil {
		return
	}
	var stock api.Inventory
	if _, ok = s.get(ctx, &stock, call{op: "getInventory", arg: p.Sku}, http.StatusOK); !ok || stock.Available < enough ||
		price.Amount > maxTotal/(stock.Available+beyondStock) {
		return
	}
	if g.main.Sku == "" {
		g.main, g.price, g.stock = p, price, stock.Available
	} else {
		g.side, g.sidePay = &p, price
	}
}

// sold is the price of a product in a currency, in its first one if none is asked for.
func sold(p api.Product, currency string) (api.Money, bool) {
	for _, m := range p.Prices {
		if m.Amount > 0 && (currency == "" || m.Currency == currency) {
			return m, true
		}
	}
	return api.Money{}, false
}

func (s *suite) products(ctx context.Context, g *goods) {
	if r, ok := s.get(ctx, nil, call{op: "listProducts"}, http.StatusOK); ok {
		found, _ := page(r)
		s.foundIf(len(found) > 20, r, "/body/data", "has %d entries; without limit it is 20", len(found))
		s.unchanged(ctx, call{op: "listProducts"}, r)
	}
	skus := make([]string, len(g.all))
	for i, p := range g.all {
		skus[i] = p.Sku
	}
	if r, ok := s.get(ctx, nil, call{op: "listProducts", query: values("limit", "5")}, http.StatusOK); ok && !slices.IsSorted(skus) {
		s.foundf(r, "/body/data", "is not in the order of skus")
	}
	cursor := s.walkInto(ctx, "listProducts", values("limit", "2"), skus[:min(5, len(skus))])
	s.badPages(ctx, "listProducts", "", cursor, values("q", "a"))
	s.search(ctx, g.main)
	one := call{op: "getProduct", arg: g.main.Sku}
	var product api.Product
	if r, ok := s.get(ctx, &product, one, http.StatusOK); ok {
		same := product.Version != g.main.Version || product.Name == g.main.Name && slices.Equal(product.Prices, g.main.Prices)
		s.foundIf(product.Sku != g.main.Sku || !same,
			r, "/body", "is not what listProducts shows of %s", g.main.Sku)
		s.unchanged(ctx, one, r)
		for _, tags := range []string{`"other", ` + r.header.Get("ETag"), "*"} {
			s.get(ctx, nil, one.with("If-None-Match", tags), http.StatusNotModified)
		}
		s.get(ctx, nil, one.with("If-None-Match", `"other"`), http.StatusOK)
	}
	s.refused(ctx, errcode.CAT001, call{op: "getProduct", arg: "no-" + s.ref})
	s.refused(ctx, errcode.CAT001, call{op: "getProduct", arg: "no-" + s.ref}.with("Accept-Language", "zh-CN"))
	s.refused(ctx, errcode.REQ003, call{op: "getProduct", arg: "not a sku"}, "/path/sku")
	s.badToken(ctx, call{op: "getProduct", arg: g.main.Sku})
}

// search: q finds a product by its sku and by the words of its name, in any case and order.
func (s *suite) search(ctx context.Context, p api.Product) {
	words := strings.Fields(p.Name)
	slices.Reverse(words)
	for _, q := range []string{p.Sku, strings.ToLower(p.Sku), strings.ToUpper(p.Name), strings.Join(words, "  ") + " " + p.Sku} {
		if utf8.RuneCountInString(q) > 64 {
			continue
		}
		var page api.ProductList
		r, ok := s.get(ctx, &page, call{op: "listProducts", query: values("q", q, "limit", "100")}, http.StatusOK)
		if !ok {
			continue
		}
		found := false
		for _, hit := range page.Data {
			found = found || hit.Sku == p.Sku
			for word := range strings.FieldsSeq(q) {
				s.foundIf(!strings.Contains(strings.ToLower(hit.Sku+"\n"+hit.Name), strings.ToLower(word)),
					r, "/body/data", "has %q, which does not contain %q", hit.Sku, word)
			}
		}
		s.foundIf(!found && page.NextCursor == nil, r, "/body/data", "lacks %s", p.Sku)
	}
	var none api.ProductList
	r, ok := s.get(ctx, &none, call{op: "listProducts", query: values("q", "no-"+s.ref)}, http.StatusOK)
	s.foundIf(ok && (len(none.Data) != 0 || none.NextCursor != nil), r, "/body", "is not empty, and nothing contains no-%s", s.ref)
	s.refused(ctx, errcode.REQ003, call{op: "listProducts", query: values("q", "")}, "/query/q")
}

func (s *suite) inventory(ctx context.Context, g *goods) {
	one := call{op: "getInventory", arg: g.main.Sku}
	var stock api.Inventory
	if r, ok := s.get(ctx, &stock, one, http.StatusOK); ok {
		s.foundIf(stock.Sku != g.main.Sku, r, "/body/sku", "is %q", stock.Sku)
		s.foundIf(stock.Available+stock.Reserved > stock.OnHand, r, "/body/available", "is more than is on hand and not reserved")
		s.unchanged(ctx, one, r)
	}
	s.refused(ctx, errcode.INV001, call{op: "getInventory", arg: "no-" + s.ref})
	s.refused(ctx, errcode.REQ003, call{op: "getInventory", arg: "not a sku"}, "/path/sku")
	s.badToken(ctx, one)
}

// page is what a page of any list names, and the cursor of the next one.
func page(r reply) (ids []string, next *string) {
	var list struct {
		Data       []struct{ ID, Sku string }
		NextCursor *string `json:"next_cursor"`
	}
	decode(r, &list)
	for _, entry := range list.Data {
		ids = append(ids, entry.ID+entry.Sku)
	}
	return ids, list.NextCursor
}

// walk reads a list to its end, page by page, and on one page: it has those entries, in this order, and no others. It returns the first cursor.
func (s *suite) walk(ctx context.Context, op, arg string, query map[string][]string, want []string) string {
	got, first, r, ok := s.pages(ctx, op, arg, query, len(want)+1)
	s.foundIf(ok && !slices.Equal(got, want), r, "/body/data", "page by page it is %v and not %v", got, want)
	if ok && len(want) > 1 && len(want) <= 100 {
		whole := maps.Clone(query)
		whole["limit"] = []string{"100"}
		if r, ok = s.get(ctx, nil, call{op: op, arg: arg, query: whole}, http.StatusOK); ok {
			got, _ = page(r)
			s.foundIf(!slices.Equal(got, want), r, "/body/data", "on one page is %v, and page by page %v", got, want)
		}
	}
	return first
}

// walkInto is walk into a list that is longer: it begins with those entries. Others may change the list: what it begins with is read again then.
func (s *suite) walkInto(ctx context.Context, op string, query map[string][]string, want []string) (first string) {
	for range 10 {
		got, cursor, r, ok := s.pages(ctx, op, "", query, len(want))
		first = cmp.Or(first, cursor)
		got = got[:min(len(got), len(want))]
		if !ok || slices.Equal(got, want) {
			return first
		}
		again, ok := s.get(ctx, nil, call{op: op, query: values("limit", "100")}, http.StatusOK)
		if !ok {
			return first
		}
		now, _ := page(again)
		if now = now[:min(len(now), len(want))]; slices.Equal(now, want) {
			s.foundf(r, "/body/data", "page by page it begins with %v and not %v", got, want)
			return first
		}
		want = now
	}
	s.skipf("%s could not be read page by page: it changed all the time", op)
	return first
}

// pages reads a list page by page until it has seen so many entries, or all. It returns the first cursor, too.
func (s *suite) pages(ctx context.Context, op, arg string, query map[string][]string, most int) (got []string, first string, r reply, ok bool) {
	c := call{op: op, arg: arg, query: maps.Clone(query)}
	for {
		if r, ok = s.get(ctx, nil, c, http.StatusOK); !ok {
			return got, first, r, false
		}
		ids, next := page(r)
		got = append(got, ids...)
		if next == nil || len(got) >= most {
			return got, first, r, true
		}
		first = cmp.Or(first, *next)
		if len(ids) == 0 {
			s.foundf(r, "/body/next_cursor", "leads on from an empty page")
			return got, first, r, false
		}
		c.query.Set("cursor", *next)
	}
}

// badPages: limits outside of the contract and cursors that are not of this list are refused.
func (s *suite) badPages(ctx context.Context, op, arg, cursor string, other map[string][]string) {
	for _, limit := range []string{"0", "101", "-1", "1.5", "ten"} {
		s.refused(ctx, errcode.REQ003, call{op: op, arg: arg, query: values("limit", limit)}, "/query/limit")
	}
	s.refused(ctx, errcode.REQ003, call{op: op, arg: arg, query: values("cursor", "")}, "/query/cursor")
	s.refused(ctx, errcode.REQ012, call{op: op, arg: arg, query: values("cursor", "made-up")})
	if cursor == "" {
		return
	}
	s.refused(ctx, errcode.REQ012, call{op: op, arg: arg, query: values("cursor", forge(cursor))})
	if other != nil {
		c := call{op: op, arg: arg, query: maps.Clone(other)}
		c.query.Set("cursor", cursor)
		s.refused(ctx, errcode.REQ012, c)
	}
}

// badToken: a consistency token that was altered is refused.
func (s *suite) badToken(ctx context.Context, c call) {
	if s.token != "" {
		s.refused(ctx, errcode.REQ003, c.with("X-Consistency-Token", forge(s.token)), "/header/X-Consistency-Token")
	}
}

// forge alters a character in the middle of a text.
func forge(text string) string {
	b := []byte(text)
	i := len(b) / 2
	for b[i] == '.' || b[i] == '-' || b[i] == '_' {
		i++
	}
	if b[i] == '0' {
		b[i] = '1'
	} else {
		b[i] = '0'
	}
	return string(b)
}
