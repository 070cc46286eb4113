import createClient from 'openapi-fetch';
import type { paths } from './client/schema.d.ts';

const { URL: baseUrl, KEY } = process.env;
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${KEY}` } });

function place(sku: string) {
  return client.POST('/v1/orders', {
    params: { header: { 'Idempotency-Key': crypto.randomUUID(), Prefer: 'wait=10' } },
    body: { currency: 'EUR', customer_ref: 'generated', lines: [{ sku, quantity: 1 }] },
  });
}

const placed = await place('LAMP-0001');
if (!placed.data) throw new Error(placed.error.code);
console.log('placed', placed.data.id, placed.data.status);

const refused = await place('NO-SUCH-SKU');
if (refused.error?.code !== 'CAT_005') throw new Error(`not CAT_005: ${refused.error?.code}`);
console.log('refused', refused.error.code, refused.error.errors[0]?.pointer);

const cancelled = await client.POST('/v1/orders/{order_id}/cancel', {
  params: { path: { order_id: placed.data.id }, header: { 'Idempotency-Key': crypto.randomUUID(), Prefer: 'wait=10' } },
});
if (!cancelled.data) throw new Error(cancelled.error.code);
console.log('cancelled', cancelled.data.status);

let products = 0;
let cursor: string | null | undefined;
do {
  const page = await client.GET('/v1/products', { params: { query: { limit: 100, cursor: cursor ?? undefined } } });
  if (!page.data) throw new Error(page.error?.code);
  products += page.data.data.length;
  cursor = page.data.next_cursor;
} while (cursor);
console.log('paged', products);
