import java.util.List;
import java.util.UUID;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.OrdersApi;
import org.openapitools.client.api.ProductsApi;
import org.openapitools.client.model.Order;
import org.openapitools.client.model.PlaceOrder;
import org.openapitools.client.model.PlaceOrderLine;
import org.openapitools.client.model.Problem422CAT003004005CPN001002004IDEM002ORD003004005008;
import org.openapitools.client.model.ProblemCAT005;
import org.openapitools.client.model.ProductList;

/** Works with the client that openapi-generator makes for Java. */
public class Main {
  private static OrdersApi orders;

  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("URL"));
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + System.getenv("KEY")));
    orders = new OrdersApi(client);

    Order placed = place("LAMP-0001");
    System.out.println("placed " + placed.getId() + " " + placed.getStatus());

    try {
      place("NO-SUCH-SKU");
    } catch (ApiException refused) {
      Object problem = client.getObjectMapper()
          .readValue(refused.getResponseBody(), Problem422CAT003004005CPN001002004IDEM002ORD003004005008.class)
          .getActualInstance();
      ProblemCAT005 unknown = (ProblemCAT005) problem;
      System.out.println("refused " + unknown.getCode() + " " + unknown.getErrors().get(0).getPointer());
    }

    Order cancelled = orders.cancelOrder(placed.getId(), UUID.randomUUID().toString(), "wait=10", null, null, null);
    System.out.println("cancelled " + cancelled.getStatus());

    int products = 0;
    String cursor = null;
    do {
      ProductList page = new ProductsApi(client).listProducts(null, 100, cursor, null, null, null, null);
      products += page.getData().size();
      cursor = page.getNextCursor();
    } while (cursor != null);
    System.out.println("paged " + products);
  }

  private static Order place(String sku) throws ApiException {
    PlaceOrder order = new PlaceOrder().currency("EUR").customerRef("generated")
        .lines(List.of(new PlaceOrderLine().sku(sku).quantity(1)));
    return orders.placeOrder(UUID.randomUUID().toString(), order, "wait=10", null, null);
  }
}
