curl -i http://127.0.0.1:8080/v1/orders \
  -H 'Authorization: Bearer og_test_your_key' \
  -H "Idempotency-Key: $(od -An -N8 -tx8 /dev/urandom)" \
  -H 'Content-Type: application/json' \
  -H 'Prefer: wait=10' \
  -d '{
    "currency": "EUR",
    "customer_ref": "customer-1",
    "lines": [{"sku": "LAMP-0001", "quantity": 1}],
    "payment": {"method_token": "pm_ok"}
  }'
