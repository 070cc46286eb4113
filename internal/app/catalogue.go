package app

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ordergate/ordergate/gen/cataloguedb"
	"github.com/ordergate/ordergate/gen/inventorydb"
)

// firstSKU is a product of the sample catalogue.
const firstSKU = "LAMP-0001"

// articles and series make the sample catalogue: each article in each series. Prices are in cents; a yuan price is eight times the
// euro price, rounded to whole yuan.
var (
	articles = []struct {
		prefix, name, description string
		cents                     int64
		stock                     int64
	}{
		{"LAMP", "Desk lamp", "Dims to candle light and remembers its last setting.", 3990, 400},
		{"CHAIR", "Office chair", "Breathing mesh back, adjustable in five places.", 18900, 60},
		{"DESK", "Standing desk", "Rises from 65 to 130 cm without a sound.", 39900, 25},
		{"SHELF", "Wall shelf", "Solid oak, carries 30 kg.", 5490, 150},
		{"MUG", "Stoneware mug", "Holds 350 ml and keeps them warm.", 1290, 1200},
		{"BOWL", "Noodle bowl", "Deep enough for a soup, thin enough for the hand.", 1690, 900},
		{"PAN", "Cast-iron pan", "28 cm, ready seasoned.", 6490, 180},
		{"KNIFE", "Chef's knife", "20 cm blade of folded steel.", 8990, 140},
		{"KETTLE", "Water kettle", "One litre in three minutes, holds 80 degrees for green tea.", 5990, 200},
		{"TEAPOT", "Clay teapot", "Hand-thrown, 600 ml, with a strainer.", 4290, 110},
		{"TOWEL", "Bath towel", "Organic cotton, 70 by 140 cm.", 2490, 600},
		{"BLANKET", "Wool blanket", "Merino, 130 by 180 cm.", 8490, 120},
		{"PILLOW", "Buckwheat pillow", "Cool in summer, shaped by the sleeper.", 3490, 220},
		{"BAG", "Rucksack", "22 litres, waxed cotton, a sleeve for a laptop.", 9990, 160},
		{"WALLET", "Card wallet", "Eight cards and some notes, vegetable-tanned leather.", 3990, 300},
		{"BOTTLE", "Vacuum bottle", "750 ml, hot for a day.", 2990, 500},
		{"PEN", "Fountain pen", "Steel nib, fine, with a converter.", 4490, 260},
		{"BOOK", "Notebook", "192 dotted pages that lie flat.", 1590, 1500},
		{"CLOCK", "Wall clock", "Silent movement, 30 cm.", 4990, 130},
		{"RADIO", "Kitchen radio", "DAB+, two alarms, one large knob.", 11900, 80},
		{"SPEAKER", "Travel speaker", "Twelve hours of music, survives rain.", 7990, 170},
		{"CABLE", "Braided cable", "USB-C, 2 m, 100 W.", 1990, 2000},
		{"BIKELOCK", "Bicycle lock", "Folding, 90 cm, three keys.", 7490, 90},
		{"UMBRELLA", "Storm umbrella", "Fibreglass ribs, tested at 100 km/h.", 4590, 210},
	}
	series = []struct {
		name    string
		percent int64
	}{
		{"Aurora", 100}, {"Birch", 95}, {"Cobalt", 110}, {"Dune", 105}, {"Ember", 120}, {"Fjord", 130}, {"Garnet", 145}, {"Haze", 90}, {"Indigo", 160},
	}
)

// catalogue is the sample products of an account with their stock: 216 of them.
func catalogue(account int32) (cataloguedb.InsertProductsParams, inventorydb.InsertStockParams) {
	p := cataloguedb.InsertProductsParams{Account: account, Mode: "test"}
	s := inventorydb.InsertStockParams{Account: account, Mode: "test"}
	for _, a := range articles {
		for i, line := range series {
			cents := (a.cents*line.percent/100/10)*10 + 9 // ends in 9, as prices do
			sku := fmt.Sprintf("%s-%04d", a.prefix, i+1)
			p.Skus, p.Names = append(p.Skus, sku), append(p.Names, a.name+" "+line.name)
			p.Descriptions = append(p.Descriptions, a.description)
			p.Prices = append(p.Prices, fmt.Appendf(nil, `{"EUR": %d, "CNY": %d}`, cents, cents*8/100*100))
			s.Skus, s.OnHand = append(s.Skus, sku), append(s.OnHand, a.stock+int64(i)*7)
		}
	}
	return p, s
}

// loadCatalogue gives an account the sample products and their stock in its test mode, once, and returns how many products it has.
func loadCatalogue(ctx context.Context, conn *pgx.Conn, account int32) (int64, error) {
	q := cataloguedb.New(conn)
	owner := cataloguedb.CountProductsParams{Account: account, Mode: "test"}
	n, err := q.CountProducts(ctx, owner)
	if err != nil || n > 0 {
		return n, err
	}
	products, stock := catalogue(account)
	if err = q.InsertProducts(ctx, products); err != nil {
		return 0, err
	}
	if err = inventorydb.New(conn).InsertStock(ctx, stock); err != nil {
		return 0, err
	}
	return q.CountProducts(ctx, owner)
}
