// Against a running gateway: ORDERGATE_URL is its address, ORDERGATE_KEY a test key with all
// scopes. At least one product must be on sale and in stock, and the payment simulator must answer.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { before, test } from 'node:test';
import * as esm from '@ordergate/client';

const { ORDERGATE_URL: baseUrl, ORDERGATE_KEY: apiKey } = process.env;
assert.ok(baseUrl && apiKey, 'ORDERGATE_URL and ORDERGATE_KEY must be set');
const cjs = createRequire(import.meta.url)('@ordergate/client');
const TIERS = ['lru', 'redis', 'replica', 'primary'];
const NOBODY = 'ord_00000000000000000000000000000000';

for (const [build, { createOrdergate, isOrdergateError }] of Object.entries({ 'ES module': esm, CommonJS: cjs })) {
  const og = createOrdergate({ baseUrl, apiKey });
  const customer_ref = `e2e-${crypto.randomUUID()}`;
  let body;

  /** The error of the operation, typed. */
  async function refused(operation, promise) {
    const answer = await promise.then((value) => ({ value }), (error) => ({ error }));
    assert.ok(answer.error, `answered ${JSON.stringify(answer.value)}`);
    if (!isOrdergateError(answer.error, operation)) throw answer.error;
    assert.match(answer.error.traceId, /^[A-Za-z0-9-]{1,64}$/);
    assert.ok(answer.error.message);
    return answer.error;
  }

  before(async () => {
    for await (const { sku, prices, active } of og.products.list()) {
      if (!active || !prices.length || (await og.inventory.get(sku)).available < 10) continue;
      body = { currency: prices[0].currency, customer_ref, lines: [{ sku, quantity: 1, expected_unit_price: prices[0] }], metadata: { build } };
      return;
    }
    assert.fail('no product is on sale and in stock');
  });

  test(`${build}: products are listed and read`, async () => {
    const page = await og.products.list({ limit: 2 }).page();
    assert.ok(page.data.length > 0 && page.data.length <= 2);
    assert.ok(TIERS.includes(og.meta(page).servedBy), og.meta(page).servedBy);
    const [{ sku }] = body.lines;
    assert.equal((await og.products.get(sku)).sku, sku);
  });

  test(`${build}: a product is created, changed and stocked`, async () => {
    const sku = customer_ref;
    const made = await og.products.create({ sku, name: 'e2e', prices: [{ amount: 1, currency: 'KWD' }], active: false });
    assert.deepEqual(await og.products.get(sku), made);
    const ifMatch = og.meta(made).etag;
    const changed = await og.products.update(sku, { name: 'changed', low_stock_at: 3 }, { ifMatch });
    assert.deepEqual([changed.version, changed.name, changed.low_stock_at], [2, 'changed', 3]);
    assert.deepEqual(await og.products.get(sku), changed);
    const stale = await refused('updateProduct', og.products.update(sku, { name: 'x' }, { ifMatch }));
    assert.ok(stale.is('REQ_010'));
    assert.equal(stale.problem.current_version, 2);
    assert.equal((await og.inventory.adjust(sku, { delta: 7, reason: 'e2e' })).available, 7);
    assert.equal((await og.inventory.get(sku)).on_hand, 7);
    assert.ok((await refused('adjustInventory', og.inventory.adjust(sku, { delta: -8, reason: 'e2e' }))).is('INV_006'));
    await og.inventory.adjust(sku, { delta: -7, reason: 'e2e' });
  });

  test(`${build}: an order is placed, decided, read back, listed, and tells its events and saga`, async () => {
    const placed = await og.orders.place({ ...body, payment: { method_token: 'pm_ok' } }, { waitSeconds: 10 });
    assert.deepEqual([placed.status, placed.payment_status, placed.customer_ref], ['confirmed', 'paid', customer_ref]);
    assert.equal(og.meta(placed).status, 201);

    const read = await og.orders.get(placed.id);
    const { servedBy, age, etag } = og.meta(read);
    assert.ok(TIERS.includes(servedBy), servedBy);
    assert.ok(age >= 0);
    assert.ok(read.version >= placed.version, 'what was written is read');
    assert.equal(await og.orders.get(placed.id, { ifNoneMatch: etag }), null);

    const listed = [];
    for await (const { id } of og.orders.list({ customer_ref, limit: 1 })) listed.push(id);
    assert.deepEqual(listed, [placed.id]);

    const events = [];
    for await (const event of og.orders.events(placed.id, { limit: 2 })) events.push(event);
    assert.deepEqual(events.map(({ sequence }) => sequence), Array.from({ length: read.version }, (_, i) => i + 1));
    assert.equal(events[0].type, 'order.created');
    assert.ok(events.every(({ type }) => type !== 'UNKNOWN'));

    const saga = await og.orders.saga(placed.id);
    assert.equal(saga.order_id, placed.id);
    assert.ok(saga.steps.some(({ name, status }) => name === 'reserve_stock' && status === 'done'), JSON.stringify(saga));
  });

  test(`${build}: an order is paid with a second card, and refunded in parts`, async () => {
    const { id } = await og.orders.place({ ...body, lines: body.lines.map((line) => ({ ...line, quantity: 2 })) }, { waitSeconds: 10 });
    const declined = await refused('payOrder', og.orders.pay(id, { method_token: 'pm_declined' }, { waitSeconds: 10 }));
    assert.ok(declined.is('PAY_007') && declined.problem.decline_reason);
    const payment = await og.orders.pay(id, { method_token: 'pm_ok' }, { waitSeconds: 10 });
    assert.deepEqual([payment.status, payment.attempt, og.meta(payment).status], ['captured', 2, 201]);
    assert.equal((await og.orders.get(id)).payment_status, 'paid', 'what was waited for is read');
    const amount = { amount: 1, currency: payment.amount.currency };
    const part = await og.payments.refund(payment.id, { amount, reason: 'e2e' }, { waitSeconds: 10 });
    assert.deepEqual([part.status, part.amount], ['succeeded', amount]);
    assert.equal((await og.orders.get(id)).payment_status, 'partially_refunded');
    await og.payments.refund(payment.id, { reason: 'the rest' }, { waitSeconds: 10 });
    assert.equal((await og.orders.get(id)).payment_status, 'refunded');
    const nothing = await refused('refundPayment', og.payments.refund(payment.id, { reason: 'more' }));
    assert.ok(nothing.is('RFD_001') && nothing.problem.refundable.amount === 0);
  });

  test(`${build}: an order without payment is reserved, cancelled, and not cancelled twice`, async () => {
    const reserved = await og.orders.place(body, { waitSeconds: 10 });
    assert.equal(reserved.status, 'reserved');
    const cancelled = await og.orders.cancel(reserved.id, { reason: 'e2e' }, { waitSeconds: 10 });
    assert.equal(cancelled.status, 'cancelled');
    assert.ok((await refused('cancelOrder', og.orders.cancel(reserved.id))).is('ORD_007'));
  });

  test(`${build}: a declined payment throws what a refusal throws, with the order`, async () => {
    const error = await refused('placeOrder', og.orders.place({ ...body, payment: { method_token: 'pm_declined' } }, { waitSeconds: 10 }));
    assert.ok(error.is('PAY_007'), error.code);
    assert.ok(error.problem.decline_reason);
    assert.deepEqual([error.status, error.order.status, error.order.rejection.code], [422, 'rejected', 'PAY_007']);
  });

  test(`${build}: a rejection has the texts of the registry, remedy included, at once and later`, async () => {
    const { rejection } = await og.errors.get('PAY_007');
    const now = await refused('placeOrder', og.orders.place({ ...body, payment: { method_token: 'pm_declined' } }, { waitSeconds: 10 }));
    const placed = await og.orders.place({ ...body, payment: { method_token: 'pm_declined' } });
    assert.equal(placed.status, 'pending');
    const later = await refused('placeOrder', og.orders.settled(placed.id, { signal: AbortSignal.timeout(30_000) }));
    for (const { problem } of [now, later]) {
      assert.deepEqual([problem.detail, problem.retryable], [rejection.description, false], JSON.stringify(rejection));
      assert.notEqual(problem.detail, problem.message);
    }
    const { instance: one, trace_id: a, ...first } = now.problem;
    const { instance: two, trace_id: b, ...second } = later.problem;
    assert.deepEqual(second, first);
  });

  test(`${build}: an order is waited for through payment, cancellation and refund`, async () => {
    const bounded = () => ({ signal: AbortSignal.timeout(30_000) });
    const { id } = await og.orders.place(body);
    assert.equal((await og.orders.settled(id, bounded())).status, 'reserved');
    await og.orders.pay(id, { method_token: 'pm_slow' });
    assert.deepEqual(await og.orders.settled(id, bounded()).then(({ status, payment_status }) => [status, payment_status]), ['confirmed', 'paid']);
    await og.orders.cancel(id);
    assert.deepEqual(await og.orders.settled(id, bounded()).then(({ status, payment_status }) => [status, payment_status]), ['cancelled', 'refunded']);
    const { id: timesOut } = await og.orders.place({ ...body, payment: { method_token: 'pm_timeout' } });
    assert.ok((await refused('placeOrder', og.orders.settled(timesOut, bounded()))).is('PAY_003'));
  });

  test(`${build}: an order is watched to its end`, async () => {
    const { id } = await og.orders.place({ ...body, payment: { method_token: 'pm_declined' } });
    const types = [];
    for await (const { type } of og.orders.watch(id)) types.push(type);
    assert.deepEqual([types[0], types.at(-1)], ['order.created', 'order.rejected']);
    assert.equal((await og.orders.get(id)).version, types.length);
  });

  test(`${build}: a wait that is cut short gives the pending order back`, async () => {
    const begun = performance.now();
    const placed = await og.orders.place({ ...body, payment: { method_token: 'pm_timeout' } }, { waitSeconds: 10, timeoutMs: 2_600 });
    assert.equal(placed.status, 'pending');
    assert.ok(performance.now() - begun < 5_000);
  });

  test(`${build}: ORD_001, CAT_005, IDEM_002`, async () => {
    const missing = await refused('getOrder', og.orders.get(NOBODY));
    assert.deepEqual([missing.code, missing.status, missing.retryable], ['ORD_001', 404, false]);

    const unknown = await refused('placeOrder', og.orders.place({ ...body, lines: [{ sku: 'NO-SUCH-SKU', quantity: 1 }] }));
    assert.deepEqual([unknown.code, unknown.status, unknown.order], ['CAT_005', 422, null]);

    const idempotencyKey = crypto.randomUUID();
    const first = await og.orders.place(body, { idempotencyKey });
    const again = await og.orders.place(body, { idempotencyKey });
    assert.deepEqual(again, first);
    assert.deepEqual([og.meta(first).replayed, og.meta(again).replayed], [false, true]);
    const other = { ...body, customer_ref: 'another' };
    assert.ok((await refused('placeOrder', og.orders.place(other, { idempotencyKey }))).is('IDEM_002'));
    await og.orders.cancel(first.id);
  });

  test(`${build}: the registry and the contract are served`, async () => {
    const entry = await og.errors.get('PAY_003');
    assert.deepEqual([entry.status, entry.message['zh-CN']], [504, '支付超时,请重试']);
    assert.equal((await og.contract.json()).openapi, '3.1.0');
    assert.match(await og.contract.yaml(), /^openapi:/m);
  });
}
