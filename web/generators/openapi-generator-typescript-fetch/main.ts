import { Configuration, OrdersApi, ProblemCAT005FromJSON, ProductsApi, ResponseError } from './client';

const { URL: basePath, KEY } = process.env;
const configuration = new Configuration({ basePath, accessToken: KEY });
const orders = new OrdersApi(configuration);
const products = new ProductsApi(configuration);

function place(sku: string) {
  return orders.placeOrder({
    idempotencyKey: crypto.randomUUID(),
    prefer: 'wait=10',
    placeOrder: { currency: 'EUR', customerRef: 'generated', lines: [{ sku, quantity: 1 }] },
  });
}

async function main() {
  const placed = await place('LAMP-0001');
  console.log('placed', placed.id, placed.status);

  try {
    await place('NO-SUCH-SKU');
  } catch (error) {
    if (!(error instanceof ResponseError) || error.response.status !== 422) throw error;
    const body = await error.response.json();
    if (body.code !== 'CAT_005') throw new Error(`not CAT_005: ${body.code}`);
    const problem = ProblemCAT005FromJSON(body);
    console.log('refused', problem.code, problem.errors[0]?.pointer);
  }

  const cancelled = await orders.cancelOrder({ orderId: placed.id, idempotencyKey: crypto.randomUUID(), prefer: 'wait=10' });
  console.log('cancelled', cancelled.status);

  let count = 0;
  let cursor: string | undefined;
  do {
    const page = await products.listProducts({ limit: 100, cursor });
    count += page.data.length;
    cursor = page.nextCursor ?? undefined;
  } while (cursor);
  console.log('paged', count);
}

void main();
