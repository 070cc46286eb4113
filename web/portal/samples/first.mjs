import { createOrdergate, isOrdergateError } from '@ordergate/client';

const og = createOrdergate({ baseUrl: 'http://127.0.0.1:8080', apiKey: 'og_test_your_key' });
try {
  const order = await og.orders.place(
    {
      currency: 'EUR',
      customer_ref: 'customer-1',
      lines: [{ sku: 'LAMP-0001', quantity: 1 }],
      payment: { method_token: 'pm_ok' },
    },
    { waitSeconds: 10 },
  );
  console.log(order.id, order.status);
} catch (error) {
  if (!isOrdergateError(error)) throw error;
  console.log(error.code, error.message);
}
