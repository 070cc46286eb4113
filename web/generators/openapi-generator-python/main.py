import os
import uuid

import openapi_client
from openapi_client import Configuration, OrdersApi, PlaceOrder, PlaceOrderLine, ProblemCAT005, ProductsApi
from openapi_client.exceptions import UnprocessableEntityException

client = openapi_client.ApiClient(Configuration(host=os.environ["URL"], access_token=os.environ["KEY"]))
orders = OrdersApi(client)


def place(sku: str):
    order = PlaceOrder(currency="EUR", customer_ref="generated", lines=[PlaceOrderLine(sku=sku, quantity=1)])
    return orders.place_order(str(uuid.uuid4()), order, prefer="wait=10")


placed = place("LAMP-0001")
print("placed", placed.id, placed.status)

try:
    place("NO-SUCH-SKU")
except UnprocessableEntityException as refused:
    problem = refused.data.actual_instance
    assert isinstance(problem, ProblemCAT005), problem
    print("refused", problem.code, problem.errors[0].pointer)

cancelled = orders.cancel_order(placed.id, str(uuid.uuid4()), prefer="wait=10")
print("cancelled", cancelled.status)

products, cursor = 0, None
while True:
    page = ProductsApi(client).list_products(limit=100, cursor=cursor)
    products += len(page.data)
    cursor = page.next_cursor
    if cursor is None:
        break
print("paged", products)
