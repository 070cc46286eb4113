// Command client works with the client that openapi-generator makes for Go.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/google/uuid"

	"generated/client"
)

func main() {
	ctx := context.WithValue(context.Background(), client.ContextAccessToken, os.Getenv("KEY"))
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Getenv("URL")}}
	c := client.NewAPIClient(configuration)
	place := func(sku string) (*client.Order, error) {
		order := client.NewPlaceOrder("EUR", "generated", []client.PlaceOrderLine{*client.NewPlaceOrderLine(sku, 1)})
		placed, _, err := c.OrdersAPI.PlaceOrder(ctx).IdempotencyKey(uuid.NewString()).Prefer("wait=10").PlaceOrder(*order).Execute()
		return placed, err
	}

	placed, err := place("LAMP-0001")
	must(err)
	fmt.Println("placed", placed.Id, placed.Status)

	_, err = place("NO-SUCH-SKU")
	refused, ok := errors.AsType[*client.GenericOpenAPIError](err)
	if !ok {
		log.Fatalf("not refused: %v", err)
	}
	union, ok := refused.Model().(interface{ GetActualInstanceValue() any })
	if !ok {
		log.Fatalf("no union: %v, %#v", err, refused.Model())
	}
	switch problem := union.GetActualInstanceValue().(type) {
	case client.ProblemCAT005:
		fmt.Println("refused", problem.Code, problem.Errors[0].Pointer)
	default:
		log.Fatalf("not CAT_005: %#v", problem)
	}

	cancelled, _, err := c.OrdersAPI.CancelOrder(ctx, placed.Id).IdempotencyKey(uuid.NewString()).Prefer("wait=10").Execute()
	must(err)
	fmt.Println("cancelled", cancelled.Status)

	products := 0
	for request := c.ProductsAPI.ListProducts(ctx).Limit(100); ; {
		page, _, err := request.Execute()
		must(err)
		products += len(page.Data)
		if !page.NextCursor.IsSet() || page.NextCursor.Get() == nil {
			break
		}
		request = request.Cursor(*page.NextCursor.Get())
	}
	fmt.Println("paged", products)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
