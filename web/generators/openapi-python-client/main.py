import os
import uuid

from ordergate_client import AuthenticatedClient
from ordergate_client.api.orders import cancel_order, place_order
from ordergate_client.api.products import list_products
from ordergate_client.models import Order, PlaceOrder, PlaceOrderLine, ProductList, UnknownSku
from ordergate_client.types import UNSET

client = AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["KEY"])


def place(sku: str):
    body = PlaceOrder(currency="EUR", customer_ref="generated", lines=[PlaceOrderLine(sku=sku, quantity=1)])
    return place_order.sync(client=client, body=body, idempotency_key=str(uuid.uuid4()), prefer="wait=10")


placed = place("LAMP-0001")
assert isinstance(placed, Order), placed
print("placed", placed.id, placed.status)

refused = place("NO-SUCH-SKU")
assert isinstance(refused, UnknownSku), refused
print("refused", refused.code, refused.errors[0].pointer)

cancelled = cancel_order.sync(placed.id, client=client, idempotency_key=str(uuid.uuid4()), prefer="wait=10")
assert isinstance(cancelled, Order), cancelled
print("cancelled", cancelled.status)

products, cursor = 0, UNSET
while cursor is not None:
    page = list_products.sync(client=client, limit=100, cursor=cursor)
    assert isinstance(page, ProductList), page
    products += len(page.data)
    cursor = page.next_cursor
print("paged", products)
