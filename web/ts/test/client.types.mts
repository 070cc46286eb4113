// Compiled, never run: what must compile, and what must not.
import { createOrdergate, isOrdergateError, money, type Errors, type Money, type Order, type Payment, type ReadOptions, type Refund } from '@ordergate/client';

const og = createOrdergate({ baseUrl: '', apiKey: () => Promise.resolve('og_test_x'), language: 'zh-CN' });
const body = { currency: 'EUR', customer_ref: 'c', lines: [{ sku: 'A', quantity: 1 }] };
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const holds = <T extends true>(_?: T) => {};

// An exhaustive switch over everything that cancelOrder can throw: a new code of the contract breaks it.
export function advice(problem: Errors['cancelOrder']): string {
  switch (problem.code) {
    case 'ORD_002':
      return `${problem.from} -> ${problem.allowed.join()}`;
    case 'REQ_001': case 'REQ_002': case 'REQ_003': case 'REQ_004':
      return problem.errors.map((fault) => fault.pointer).join();
    case 'ORD_001': case 'ORD_007': case 'ORD_009':
    case 'REQ_007': case 'REQ_008': case 'REQ_009':
    case 'IDEM_001': case 'IDEM_002': case 'IDEM_003': case 'IDEM_004':
    case 'AUTH_001': case 'AUTH_002': case 'AUTH_003': case 'AUTH_004': case 'AUTH_005':
    case 'RATE_001': case 'RATE_003':
    case 'SYS_001': case 'SYS_002': case 'SYS_003': case 'SYS_005': case 'SYS_006':
    case 'UNKNOWN': case 'NETWORK': case 'ABORTED':
      return problem.message;
  }
}

// The codes that end a payment are among the refusals of paying; a refund is answered.
holds<Equal<Extract<Errors['payOrder']['code'], 'PAY_002' | 'PAY_003' | 'PAY_006' | 'PAY_007' | 'PAY_008' | 'INV_003'>,
  'PAY_002' | 'PAY_003' | 'PAY_006' | 'PAY_007' | 'PAY_008' | 'INV_003'>>();
holds<Equal<Extract<Errors['refundPayment']['code'], `PAY_${string}` | `RFD_${string}`>, 'PAY_001' | 'RFD_001' | 'RFD_003'>>();

export async function payments(): Promise<void> {
  const payment = await og.orders.pay('ord_', { method_token: 'pm' }, { waitSeconds: 5 });
  holds<Equal<typeof payment, Payment>>();
  holds<Equal<Payment['status'], 'pending' | 'authorized' | 'captured' | 'voided' | 'failed' | 'UNKNOWN'>>();
  const refund = await og.payments.refund(payment.id, { amount: payment.amount, reason: 'r' });
  holds<Equal<typeof refund, Refund>>();
  const why: string | undefined = refund.failure?.code;
  void why;
  // @ts-expect-error the reason is required
  await og.payments.refund(payment.id, {});
  try {
    await og.payments.refund(payment.id, { reason: 'r' });
  } catch (error) {
    if (isOrdergateError(error, 'refundPayment') && error.is('RFD_001')) {
      const left: Money = error.problem.refundable;
      void left;
    }
  }
}
export async function changes(): Promise<number> {
  await og.products.create({ sku: 'A', name: 'a', prices: [{ amount: 1, currency: 'EUR' }], low_stock_at: null });
  // @ts-expect-error a product has prices
  await og.products.create({ sku: 'A', name: 'a' });
  await og.products.update('A', { low_stock_at: null }, { ifMatch: '*' });
  // @ts-expect-error a change names a state
  await og.products.update('A', { active: false });
  // @ts-expect-error a sku never changes
  await og.products.update('A', { sku: 'B' }, { ifMatch: '*' });
  return (await og.inventory.adjust('A', { delta: -1, reason: 'r' }, { idempotencyKey: 'abcdefgh' })).available;
}
holds<Equal<Extract<Errors['updateProduct']['code'], 'REQ_010' | 'REQ_011' | 'IDEM_001' | 'CAT_001'>, 'REQ_010' | 'REQ_011' | 'CAT_001'>>();
holds<Equal<Extract<Errors['adjustInventory'], { code: 'INV_006' }>['code'], 'INV_006'>>();
holds<Equal<Extract<Errors['quoteOrder']['code'], 'CPN_001' | 'ORD_011' | 'ORD_004' | 'SYS_003' | 'SYS_006' | 'IDEM_001'>, 'CPN_001' | 'SYS_003'>>();
holds<Equal<Extract<Errors['placeOrder'], { code: 'ORD_011' }>['order_id'], string>>();

export function incomplete(problem: Errors['getOrder']): string {
  switch (problem.code) {
    case 'ORD_001':
      return problem.title;
    default:
      // @ts-expect-error other codes are left
      return problem satisfies never;
  }
}

// Public operations have refusals, too, and only placing an order throws its rejection.
holds<Equal<Errors['getOpenAPIYAML']['code'], 'REQ_003' | 'REQ_007' | 'SYS_001' | 'SYS_005' | 'UNKNOWN' | 'NETWORK' | 'ABORTED'>>();
holds<Equal<Extract<Errors['placeOrder']['code'], 'PAY_003' | 'CAT_001'>, 'PAY_003'>>();
holds<Equal<Extract<Errors['shipOrder']['code'], 'SHP_002' | 'SHP_003' | 'SHP_004' | 'PAY_003'>, 'SHP_002' | 'SHP_003'>>();

export async function errors(): Promise<void> {
  try {
    await og.orders.place(body, { waitSeconds: 5, idempotencyKey: 'abcdefgh', signal: AbortSignal.timeout(1) });
  } catch (error) {
    // @ts-expect-error an operation that the contract does not have
    isOrdergateError(error, 'placeOrders');
    if (!isOrdergateError(error, 'placeOrder')) throw error;
    if (error.is('ORD_004')) {
      holds<Equal<typeof error.code, 'ORD_004'>>();
      const actual: Money = error.problem.actual;
      void actual;
      // @ts-expect-error the extras of another code
      void error.problem.skus;
    } else if (error.is('INV_002')) {
      const available: number | undefined = error.problem.skus[0]?.available;
      void available;
    } else if (error.is('PAY_007')) {
      const reason: string = error.problem.decline_reason;
      void reason;
    }
    // @ts-expect-error cancelling cannot be told that there is no such product, nor can placing
    error.is('CAT_001');
    // @ts-expect-error only after narrowing
    void error.problem.skus;
    const order: Order | null = error.order;
    void order;
  }
  try {
    await og.orders.get('ord_');
  } catch (error) {
    if (isOrdergateError(error) && error.is('ORD_001')) holds<Equal<typeof error.code, 'ORD_001'>>();
  }
}

export async function answers(): Promise<void> {
  const order = await og.orders.get('ord_');
  holds<Equal<typeof order, Order>>();
  holds<Equal<Order['status'], 'pending' | 'reserved' | 'confirmed' | 'completed' | 'rejected' | 'cancelled' | 'UNKNOWN'>>();
  holds<Equal<Order['id'], string>>();
  holds<Equal<Order['version'], number>>();
  holds<Equal<NonNullable<Order['rejection']>['code'], 'INV_002' | 'INV_003' | 'PAY_003' | 'PAY_006' | 'PAY_007' | 'UNKNOWN'>>();
  const held = await og.orders.get('ord_', { ifNoneMatch: '"1"' });
  holds<Equal<typeof held, Order | null>>();
  for await (const event of og.orders.events('ord_')) {
    const at: string = event.created_at;
    if (event.type === 'order.created') holds<Equal<(typeof event.data.lines)[number]['quantity'], number>>();
    else if (event.type === 'order.rejected') holds<Equal<typeof event.data.decline_reason, string | null>>();
    else if (event.type === 'UNKNOWN') holds<Equal<typeof event.data, Record<string, unknown>>>();
    // @ts-expect-error data depends on the type
    void (at && event.data.lines);
  }
  const page = await og.orders.list({ status: 'confirmed', limit: 5 }, { traceId: 'x' }).page();
  holds<Equal<typeof page.data, Order[]>>();
  const [step] = (await og.orders.saga('ord_')).steps;
  holds<Equal<NonNullable<typeof step>['status'], 'pending' | 'running' | 'in_doubt' | 'done' | 'failed' | 'skipped' | 'UNKNOWN'>>();
  const [price] = (await og.products.get('A')).prices;
  holds<Equal<typeof price, Money | undefined>>();
  const yaml = await og.contract.yaml();
  holds<Equal<typeof yaml, string>>();
  const servedBy: string | null | undefined = og.meta(page)?.servedBy;
  void servedBy;

  const shipment = await og.orders.ship('ord_', { lines: [{ sku: 'A', quantity: 1 }], tracking: { carrier: 'DHL', number: '1' } }, { idempotencyKey: 'abcdefgh' });
  holds<Equal<(typeof shipment)['status'], 'shipped' | 'delivered' | 'UNKNOWN'>>();
  const delivered: string | null = (await og.shipments.deliver(shipment.id)).delivered_at;
  void delivered;
  holds<Equal<Awaited<ReturnType<typeof og.orders.update>>, Order>>();
  await og.orders.update('ord_', { metadata: { a: null }, shipping_address: { city: 'Hamburg', line2: null } }, { ifMatch: '*' });
  // @ts-expect-error a change names the state that it was decided on
  og.orders.update('ord_', {});
  // @ts-expect-error what an address needs cannot be removed
  og.orders.update('ord_', { shipping_address: { city: null } }, { ifMatch: '*' });
  // @ts-expect-error nor can other properties be changed
  og.orders.update('ord_', { status: 'cancelled' }, { ifMatch: '*' });
  // @ts-expect-error a shipment is there at once
  og.orders.ship('ord_', {}, { waitSeconds: 5 });
  // @ts-expect-error no such field
  void order.state;
  // @ts-expect-error an amount is a number of minor units
  const text: string = order.total.amount;
  // @ts-expect-error no such status: filters are closed
  og.orders.list({ status: 'paid' });
  // @ts-expect-error nor can one ask for what is not known
  og.orders.list({ status: 'UNKNOWN' });
  // @ts-expect-error no such filter
  og.products.list({ sku: 'A' });
  // @ts-expect-error no such status to compare with
  void (order.status === 'paid');
  og.orders.cancel('ord_', { waitSeconds: 5 });
  og.orders.cancel('ord_', { reason: 'r', idempotencyKey: 'abcdefgh' }, { waitSeconds: 5 });
  // @ts-expect-error no such option
  og.orders.cancel('ord_', { wait: 5 });
  // @ts-expect-error a write has no If-None-Match
  og.orders.cancel('ord_', {}, { ifNoneMatch: '"1"' });
  // @ts-expect-error lines are needed
  og.orders.place({ currency: 'EUR', customer_ref: 'c' });
  // @ts-expect-error a quantity is a number
  og.orders.place({ ...body, lines: [{ sku: 'A', quantity: '1' }] });
  // @ts-expect-error an unknown field
  og.orders.place({ ...body, coupon: 'X' });
  og.orders.place({ ...body, coupon_code: 'X', reference: 'PO-1', shipping: { amount: 1, currency: 'EUR' }, tax: { amount: 0, currency: 'EUR' } });
  og.orders.quote({ currency: 'EUR', lines: body.lines, coupon_code: 'X' }).then((quote) => quote.available satisfies boolean);
  // @ts-expect-error a quote takes no reference
  og.orders.quote({ ...body, reference: 'PO-1' });
  // @ts-expect-error a quote has no key
  og.orders.quote(body, { idempotencyKey: 'abcdefgh' });
  void text;
}

// Null can come wherever an ETag may be sent, and only there.
export async function nulls(cache: Map<string, { etag: string }>): Promise<void> {
  const maybe = await og.orders.get('ord_', { ifNoneMatch: cache.get('ord_')?.etag });
  holds<Equal<typeof maybe, Order | null>>();
  const never = await og.orders.get('ord_', { ifNoneMatch: undefined, version: 1 });
  holds<Equal<typeof never, Order>>();
  const options: ReadOptions = {};
  holds<Equal<Awaited<ReturnType<typeof read>>, Order | null>>();
  async function read() {
    return og.orders.get('ord_', options);
  }
  const [payment, refund, shipment, product, level, saga, code, json, yaml, page] = await Promise.all([
    og.payments.get('1', options), og.refunds.get('1', options), og.shipments.get('1', options), og.products.get('1', options), og.inventory.get('1', options),
    og.orders.saga('1', options), og.errors.get('1', options), og.contract.json(options), og.contract.yaml(options), og.orders.list().page(options),
  ]);
  holds<Equal<null extends typeof payment & typeof refund & typeof shipment & typeof product & typeof level ? true : false, true>>();
  holds<Equal<null extends typeof saga & typeof code & typeof json & typeof yaml & typeof page ? true : false, true>>();
  // @ts-expect-error a slip
  await og.orders.get('ord_', { ifNonMatch: '"1"' });
}

// A refusal for a scope says which.
export function scopes(error: unknown): string[] {
  if (isOrdergateError(error, 'placeOrder') && error.is('AUTH_005')) return error.problem.required_scopes;
  return isOrdergateError(error) && error.problem.code === 'AUTH_005' ? error.problem.required_scopes : [];
}

// A property that is undefined is left out, under exactOptionalPropertyTypes too.
export async function leftOut(signal: AbortSignal | undefined, method: { method_token: string } | undefined, cursor: string | null): Promise<void> {
  const options = { signal, traceId: undefined, timeoutMs: undefined, maxRetries: undefined, headers: undefined, fetch: undefined };
  await og.orders.place({ ...body, payment: method, coupon_code: undefined, metadata: undefined }, { ...options, idempotencyKey: undefined, waitSeconds: undefined });
  og.orders.list({ cursor, status: undefined, limit: undefined }, { ...options, consistencyToken: undefined });
  og.orders.list({ cursor: null });
  await og.orders.get('ord_', { ...options, version: undefined });
  await og.orders.settled('ord_', { signal });
  og.orders.watch('ord_', { signal, after: undefined });
  await og.orders.cancel('ord_', { reason: undefined, signal });
  createOrdergate({ baseUrl: '', apiKey: '', language: undefined, onRequest: undefined, onResponse: undefined, onRetry: undefined, ...options });
}

// Hooks are typed, and may be asynchronous. Options stand for one request, too.
createOrdergate({
  baseUrl: '', apiKey: '', fetch: globalThis.fetch, headers: { 'X-App': 'shop' },
  onRequest: ({ operation, method, path, headers, attempt }) => `${operation} ${method} ${path} ${headers['x-trace-id']} ${attempt}`,
  onResponse: async ({ status, durationMs, meta, problem }) => `${status} ${durationMs} ${meta?.servedBy} ${meta?.age} ${meta?.traceId} ${meta?.rateLimit?.remaining} ${problem?.code}`,
  onRetry: ({ pauseMs }) => pauseMs.toFixed(),
});
og.orders.get('ord_', { headers: { 'X-App': 'shop' }, timeoutMs: 500, maxRetries: 0, fetch: (url: string, init: RequestInit) => fetch(url, init) });

const amount: Money = money.fromMajor('19.99', 'EUR');
holds<Equal<ReturnType<typeof money.format>, string>>();
void amount;
