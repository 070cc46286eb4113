import { client } from './client/client.gen';
import { cancelOrder, listProducts, placeOrder } from './client/sdk.gen';

const { URL: baseUrl, KEY } = process.env;
client.setConfig({ baseUrl, auth: KEY });

function place(sku: string) {
  return placeOrder({
    headers: { 'Idempotency-Key': crypto.randomUUID(), Prefer: 'wait=10' },
    body: { currency: 'EUR', customer_ref: 'generated', lines: [{ sku, quantity: 1 }] },
  });
}

async function main() {
  const placed = await place('LAMP-0001');
  if (!placed.data) throw new Error(placed.error.code);
  console.log('placed', placed.data.id, placed.data.status);

  const refused = await place('NO-SUCH-SKU');
  if (refused.error?.code !== 'CAT_005') throw new Error(`not CAT_005: ${refused.error?.code}`);
  console.log('refused', refused.error.code, refused.error.errors[0]?.pointer);

  const cancelled = await cancelOrder({
    path: { order_id: placed.data.id },
    headers: { 'Idempotency-Key': crypto.randomUUID(), Prefer: 'wait=10' },
  });
  if (!cancelled.data) throw new Error(cancelled.error.code);
  console.log('cancelled', cancelled.data.status);

  let products = 0;
  let cursor: string | null | undefined;
  do {
    const page = await listProducts({ query: { limit: 100, cursor: cursor ?? undefined } });
    if (!page.data || !('data' in page.data)) throw new Error(page.error && 'code' in page.error ? page.error.code : 'no page');
    products += page.data.data.length;
    cursor = page.data.next_cursor;
  } while (cursor);
  console.log('paged', products);
}

void main();
