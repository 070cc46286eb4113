// Command client works with the client that ogen makes.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/google/uuid"

	"generated/client"
)

type key string

func (k key) Bearer(context.Context, client.OperationName) (client.Bearer, error) {
	return client.Bearer{Token: string(k)}, nil
}

func (key) Signature(context.Context, client.OperationName) (client.Signature, error) {
	return client.Signature{}, nil
}

func main() {
	ctx := context.Background()
	c, err := client.NewClient(os.Getenv("URL"), key(os.Getenv("KEY")))
	must(err)
	wait := client.NewOptString("wait=10")
	place := func(sku string) client.PlaceOrderRes {
		r, err := c.PlaceOrder(ctx, &client.PlaceOrder{Currency: "EUR", CustomerRef: "generated",
			Lines: []client.PlaceOrderLine{{Sku: client.ClientID(sku), Quantity: 1}}},
			client.PlaceOrderParams{IdempotencyKey: uuid.NewString(), Prefer: wait})
		must(err)
		return r
	}

	placed, ok := place("LAMP-0001").(*client.PlaceOrderCreated)
	if !ok {
		log.Fatal("not placed")
	}
	order := placed.Response
	fmt.Println("placed", order.ID, order.Status)

	switch refused := place("NO-SUCH-SKU").(type) {
	case *client.Refusal422CAT003004005CPN001002004IDEM002ORD003004005008Headers:
		problem, ok := refused.Response.GetProblemCAT005()
		if !ok {
			log.Fatalf("not CAT_005: %s", refused.Response.Type)
		}
		fmt.Println("refused", problem.Code, problem.Errors[0].Pointer)
	default:
		log.Fatalf("not refused: %#v", refused)
	}

	cancelled, err := c.CancelOrder(ctx, client.OptCancelOrder{},
		client.CancelOrderParams{OrderID: order.ID, IdempotencyKey: uuid.NewString(), Prefer: wait})
	must(err)
	done, ok := cancelled.(*client.CancelOrderOK)
	if !ok {
		log.Fatalf("not cancelled: %#v", cancelled)
	}
	fmt.Println("cancelled", done.Response.Status)

	products := 0
	for params := (client.ListProductsParams{Limit: client.NewOptInt32(100)}); ; {
		r, err := c.ListProducts(ctx, params)
		must(err)
		page, ok := r.(*client.ProductListHeaders)
		if !ok {
			log.Fatalf("no page: %#v", r)
		}
		products += len(page.Response.Data)
		if page.Response.NextCursor.Null {
			break
		}
		params.Cursor = client.NewOptString(string(page.Response.NextCursor.Value))
	}
	fmt.Println("paged", products)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
