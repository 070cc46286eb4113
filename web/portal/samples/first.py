import json
import urllib.error
import urllib.request
import uuid

request = urllib.request.Request(
    "http://127.0.0.1:8080/v1/orders",
    method="POST",
    headers={
        "Authorization": "Bearer og_test_your_key",
        "Idempotency-Key": str(uuid.uuid4()),
        "Content-Type": "application/json",
        "Prefer": "wait=10",
    },
    data=json.dumps({
        "currency": "EUR",
        "customer_ref": "customer-1",
        "lines": [{"sku": "LAMP-0001", "quantity": 1}],
        "payment": {"method_token": "pm_ok"},
    }).encode(),
)
try:
    with urllib.request.urlopen(request, timeout=20) as response:
        order = json.load(response)
        print(order["id"], order["status"])
except urllib.error.HTTPError as error:
    problem = json.load(error)
    print(problem["code"], problem["message"])
