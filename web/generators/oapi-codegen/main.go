// Command client works with the client that oapi-codegen makes.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/google/uuid"

	"generated/client"
)

func main() {
	ctx := context.Background()
	c, err := client.NewClientWithResponses(os.Getenv("URL"), client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+os.Getenv("KEY"))
		return nil
	}))
	must(err)
	wait := "wait=10"
	place := func(sku string) *client.PlaceOrderResponse {
		r, err := c.PlaceOrderWithResponse(ctx, &client.PlaceOrderParams{IdempotencyKey: uuid.NewString(), Prefer: &wait},
			client.PlaceOrder{Currency: "EUR", CustomerRef: "generated", Lines: []client.PlaceOrderLine{{Sku: sku, Quantity: 1}}})
		must(err)
		return r
	}

	placed := place("LAMP-0001").JSON201
	if placed == nil {
		log.Fatal("not placed")
	}
	fmt.Println("placed", placed.Id, placed.Status)

	refused := place("NO-SUCH-SKU").ApplicationproblemJSON422
	if refused == nil {
		log.Fatal("not refused")
	}
	problem, err := refused.ValueByDiscriminator()
	must(err)
	switch problem := problem.(type) {
	case client.ProblemCAT005:
		fmt.Println("refused", problem.Code, problem.Errors[0].Pointer)
	default:
		log.Fatalf("not CAT_005: %#v", problem)
	}

	cancelled, err := c.CancelOrderWithBodyWithResponse(ctx, placed.Id,
		&client.CancelOrderParams{IdempotencyKey: uuid.NewString(), Prefer: &wait}, "application/json", http.NoBody)
	must(err)
	if cancelled.JSON200 == nil {
		log.Fatal("not cancelled: ", cancelled.Status())
	}
	fmt.Println("cancelled", cancelled.JSON200.Status)

	limit, products := int32(100), 0
	for params := (&client.ListProductsParams{Limit: &limit}); ; {
		page, err := c.ListProductsWithResponse(ctx, params)
		must(err)
		if page.JSON200 == nil {
			log.Fatal("no page: ", page.Status())
		}
		products += len(page.JSON200.Data)
		if params.Cursor = page.JSON200.NextCursor; params.Cursor == nil {
			break
		}
	}
	fmt.Println("paged", products)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
