import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test as run } from 'node:test';
import { inspect } from 'node:util';
import { createOrdergate, createTransport, isOrdergateError, Orders, Products } from '@ordergate/client';
import { order, problem, setup } from './server.mjs';
import { end, event, stream, thrown } from './stream.mjs';

const test = (name, body) => run(name, { timeout: 8_000 }, body);
const BODY = { currency: 'EUR', customer_ref: 'c', lines: [{ sku: 'A', quantity: 1 }] };
const NOW = { 'Retry-After': '0' };
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test('an order is followed over several streams, each after the last event, until it is final', async (t) => {
  const { og, requests } = await setup(t, [
    stream(event(1, 'order.created'), event(2), end('reconnect')), problem(503, 'SYS_005', true, {}, NOW), stream(event(3)), 'hang up', stream(event(4), end('terminal')),
  ]);
  const seen = [];
  for await (const { sequence } of og.orders.watch('ord_1')) seen.push(sequence);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.deepEqual(requests.map(({ headers }) => headers['last-event-id']), [undefined, '2', '2', '3', '3']);
});

test('what is read after an event of a stream is as new as the event', async (t) => {
  const token = (text) => `event: token\ndata: {"token":"${text}"}\n\n`;
  const { og, requests } = await setup(t, [stream(token('1.07'), event(1), token('1.05'), event(2), end('terminal')), { body: order() }]);
  const events = og.orders.watch('ord_1');
  assert.equal((await events.next()).value.sequence, 1);
  assert.equal((await events.next()).value.sequence, 2);
  assert.equal((await events.next()).done, true);
  await og.orders.get('ord_1');
  assert.equal(requests[1].headers['x-consistency-token'], '1.07', 'the greatest');
});

test('a stream of which nothing is left ends at once, and a refusal is thrown', async (t) => {
  const { og } = await setup(t, [{ status: 204 }, problem(404, 'ORD_001')]);
  assert.deepEqual(await og.orders.watch('ord_1', { after: 7 }).next(), { done: true, value: undefined });
  assert.equal((await thrown(og.orders.watch('ord_1').next())).code, 'ORD_001');
});

test('following an order ends with the signal', async (t) => {
  const { og } = await setup(t, [async () => stream(event(1))]);
  const stop = new AbortController();
  const events = og.orders.watch('ord_1', { signal: stop.signal });
  assert.equal((await events.next()).value.sequence, 1);
  stop.abort(new Error('enough'));
  const error = await thrown(events.next());
  assert.ok(isOrdergateError(error, 'streamOrder') && error.is('ABORTED'));
  assert.equal(error.cause.message, 'enough');
});

test('an order is placed with credentials, a new key and the wish to wait', async (t) => {
  const { og, requests } = await setup(t, [{ status: 201, body: order() }], { language: 'zh-CN' });
  const placed = await og.orders.place(BODY, { waitSeconds: 5, traceId: 'mine-1' });
  await og.orders.place(BODY);
  assert.equal(placed.status, 'confirmed');
  assert.deepEqual(placed, order(), 'nothing is added to the order');
  const [{ method, url, headers, body }, second] = requests;
  assert.deepEqual([method, url, body], ['POST', '/v1/orders', BODY]);
  assert.equal(headers.authorization, 'Bearer og_test_key');
  assert.equal(headers['content-type'], 'application/json');
  assert.equal(headers['accept-language'], 'zh-CN');
  assert.equal(headers.prefer, 'wait=5');
  assert.equal(headers['x-trace-id'], 'mine-1');
  assert.match(headers['idempotency-key'], UUID);
  assert.notEqual(second.headers['idempotency-key'], headers['idempotency-key'], 'another order has another key');
  assert.equal(second.headers.prefer, undefined);
});

test('nothing that the client gives out shows the API key, or a header of the config', async (t) => {
  const seen = [];
  const hooks = { onRequest: (event) => seen.push(event), onResponse: (event) => seen.push(event), onRetry: (event) => seen.push(event) };
  for (const apiKey of ['og_test_secret', async () => 'og_test_secret']) {
    const { baseUrl, requests } = await setup(t, [({ url, headers }) => {
      assert.equal(headers.authorization, 'Bearer og_test_secret');
      if (url.endsWith('/stream')) return stream(event(1), end('terminal'));
      if (url.endsWith('/none')) return problem(404, 'ORD_001');
      if (url.endsWith('/lost')) return 'hang up';
      if (url.endsWith('/late')) return new Promise(() => {});
      if (url.endsWith('/page')) return { body: '<html>', headers: { 'Content-Type': 'text/html' } };
      return { body: url.includes('?') ? { data: [order()], next_cursor: null } : order() };
    }]);
    const config = { baseUrl, apiKey, headers: { Cookie: 'og_test_secret' }, maxRetries: 1, ...hooks };
    const og = createOrdergate(config);
    const transport = createTransport(config);
    const list = og.orders.list({ limit: 1 });
    const page = await list.page();
    const watched = og.orders.watch('ord_1');
    seen.push(og, transport, new Orders(transport), list, page, og.meta(page), watched, (await watched.next()).value);
    for (const id of ['none', 'lost', 'page']) seen.push(await thrown(og.orders.get(id)));
    seen.push(await thrown(og.orders.get('late', { signal: AbortSignal.abort() })), await thrown(og.orders.get('late', { timeoutMs: 50, maxRetries: 0 })));
    seen.push(await thrown(createOrdergate({ ...config, apiKey: async () => 'og_test_secret\n' }).orders.get('late')));
    assert.ok(requests.length > 5);
  }
  for (const object of seen) {
    const name = object.name ?? object.constructor.name;
    for (const text of [inspect(object, { depth: null, showHidden: true, getters: true }), JSON.stringify(object), String(object.stack)]) assert.doesNotMatch(text, /secret/, name);
  }
});

test('every operation of the contract has a method, which asks its address', async (t) => {
  const list = { data: [], next_cursor: null };
  const any = { id: '1', sku: 'A', order_id: '1', code: 'PAY_003', currency: 'EUR', openapi: '3.1.0' };
  const { og, requests } = await setup(t, [({ url, method }) => /stream$/.test(url) ? { status: 204 } : /yaml$/.test(url) ? { headers: { 'Content-Type': 'application/yaml' }, body: 'openapi: 3.1.0' } : ({ body: /(orders|events|payments|refunds|shipments|products|errors)(\?.*)?$/.test(url) && method === 'GET' ? list : any })]);
  const id = order().id;
  await og.orders.get(id);
  await og.orders.list({ status: 'confirmed', created_from: '2026-11-01T00:00:00+01:00' }).page();
  await og.orders.cancel(id);
  await og.orders.cancel(id, { reason: 'r' }, { idempotencyKey: 'my-own-key', waitSeconds: 2 });
  await og.orders.pay(id, { method_token: 'pm_ok' }, { idempotencyKey: 'my-own-key', waitSeconds: 3 });
  await og.payments.refund('pay_1', { reason: 'r' });
  await og.orders.update(id, { metadata: { gift: 'yes', note: null } }, { ifMatch: '"5-a"' });
  await og.orders.ship(id);
  await og.orders.ship(id, { lines: [{ sku: 'A', quantity: 1 }] }, { idempotencyKey: 'my-own-key' });
  await og.shipments.deliver('shp_1');
  await og.orders.events(id, { limit: 5 }).page();
  await og.orders.saga(id);
  await og.orders.get(id, { version: 2 });
  await og.orders.get(id, { as_of: '2026-11-01T00:00:00Z', ifNoneMatch: '"1-0"' });
  await og.orders.watch(id, { after: 2 }).next();
  await og.orders.payments(id, { limit: 5 }).page();
  await og.orders.shipments(id).page();
  await og.payments.list({ created_from: '2026-11-01T00:00:00Z' }).page();
  await og.payments.get('pay_1');
  await og.refunds.list({ payment_id: 'pay_1' }).page();
  await og.refunds.get('ref_1');
  await og.shipments.get('shp_1');
  await og.products.list({ q: 'lamp & co' }).page();
  await og.products.get('a/b');
  await og.inventory.get('A');
  await og.errors.list().page();
  await og.errors.get('PAY_003');
  await og.contract.json();
  await og.contract.yaml();
  await og.orders.place(BODY);
  await og.products.create({ sku: 'A', name: 'a', prices: [] });
  await og.products.update('a/b', {}, { ifMatch: '*' });
  await og.inventory.adjust('A', { delta: 1, reason: 'r' });
  await og.orders.quote({ currency: 'EUR', lines: BODY.lines });
  const contract = JSON.parse(readFileSync(new URL('../../../gen/api/openapi.json', import.meta.url), 'utf8'));
  for (const [path, item] of Object.entries(contract.paths)) {
    const form = new RegExp(`^${path.replaceAll('.', '\\.').replace(/\{\w+\}/g, '[^/]+')}(\\?|$)`);
    for (const [method, { operationId, security }] of Object.entries(item)) {
      if (security?.some(({ signature }) => signature)) continue; // the payment provider sends it, signed with a secret that no client has
      const asked = requests.some((request) => request.method === method.toUpperCase() && form.test(request.url));
      assert.ok(asked, `${operationId} has no method, or this test does not call it`);
    }
  }
  assert.deepEqual(requests.map(({ method, url }) => `${method} ${url}`), [
    `GET /v1/orders/${id}`, 'GET /v1/orders?status=confirmed&created_from=2026-11-01T00%3A00%3A00%2B01%3A00',
    `POST /v1/orders/${id}/cancel`, `POST /v1/orders/${id}/cancel`, `POST /v1/orders/${id}/payments`, 'POST /v1/payments/pay_1/refunds',
    `PATCH /v1/orders/${id}`, `POST /v1/orders/${id}/shipments`, `POST /v1/orders/${id}/shipments`, 'POST /v1/shipments/shp_1/deliver',
    `GET /v1/orders/${id}/events?limit=5`, `GET /v1/orders/${id}/saga`,
    `GET /v1/orders/${id}?version=2`, `GET /v1/orders/${id}?as_of=2026-11-01T00%3A00%3A00Z`, `GET /v1/orders/${id}/stream`, `GET /v1/orders/${id}/payments?limit=5`,
    `GET /v1/orders/${id}/shipments`, 'GET /v1/payments?created_from=2026-11-01T00%3A00%3A00Z', 'GET /v1/payments/pay_1',
    'GET /v1/refunds?payment_id=pay_1', 'GET /v1/refunds/ref_1', 'GET /v1/shipments/shp_1',
    'GET /v1/products?q=lamp%20%26%20co', 'GET /v1/products/a%2Fb', 'GET /v1/inventory/A', 'GET /v1/errors', 'GET /v1/errors/PAY_003', 'GET /openapi.json',
    'GET /openapi.yaml', 'POST /v1/orders', 'POST /v1/products', 'PATCH /v1/products/a%2Fb', 'POST /v1/inventory/A/adjustments', 'POST /v1/quotes',
  ]);
  const [bare, full, payment, refund] = requests.filter(({ method }) => method === 'POST');
  assert.deepEqual([bare.body, bare.headers['content-type']], ['', undefined]);
  assert.deepEqual([full.body, full.headers['idempotency-key'], full.headers.prefer], [{ reason: 'r' }, 'my-own-key', 'wait=2']);
  assert.deepEqual([payment.body, payment.headers['idempotency-key'], payment.headers.prefer], [{ method_token: 'pm_ok' }, 'my-own-key', 'wait=3']);
  assert.deepEqual([refund.body, refund.headers.prefer], [{ reason: 'r' }, undefined]);
  assert.deepEqual(requests.filter(({ headers }) => !headers.authorization).map(({ url }) => url), ['/v1/errors', '/v1/errors/PAY_003', '/openapi.json', '/openapi.yaml']);
});

test('a quote is a POST without a key, which is repeated', async (t) => {
  const quote = { currency: 'EUR', total: { amount: 1, currency: 'EUR' }, coupon_code: 'X', available: false };
  const { og, requests } = await setup(t, ['hang up', problem(503, 'SYS_002', true, {}, NOW), { body: quote }]);
  assert.deepEqual(await og.orders.quote({ ...BODY, coupon_code: 'X' }, { traceId: 'mine-1' }), quote);
  assert.equal(requests.length, 3);
  const [{ headers, body }] = requests;
  assert.deepEqual([headers['idempotency-key'], headers.prefer, headers['x-trace-id'], body], [undefined, undefined, 'mine-1', { ...BODY, coupon_code: 'X' }]);
});

test('a refused coupon or reference says where it stands, and of which order the reference is', async (t) => {
  const errors = [{ pointer: '/reference', rule: 'taken', message: 'is that of another order' }];
  const { og, requests } = await setup(t, [problem(409, 'ORD_011', false, { errors, order_id: order().id }), problem(409, 'CPN_003', false, { errors })]);
  const taken = await thrown(og.orders.place({ ...BODY, reference: 'PO-1', coupon_code: 'X', shipping: { amount: 1, currency: 'EUR' } }));
  assert.ok(isOrdergateError(taken, 'placeOrder') && taken.is('ORD_011'));
  assert.deepEqual([taken.problem.order_id, taken.problem.errors[0].pointer], [order().id, '/reference']);
  assert.ok((await thrown(og.orders.quote(BODY))).is('CPN_003'));
  assert.equal(requests.length, 2, 'neither is repeated');
});

test('a payment that ends without a charge is thrown as what ended it, and is not repeated', async (t) => {
  for (const [status, code] of [[422, 'PAY_007'], [504, 'PAY_003'], [502, 'PAY_006'], [409, 'INV_003'], [409, 'PAY_002']]) {
    const { og, requests } = await setup(t, [problem(status, code, false, code === 'PAY_007' ? { decline_reason: 'insufficient_funds' } : {}, NOW)]);
    const error = await thrown(og.orders.pay('ord_', { method_token: 'pm' }, { waitSeconds: 1, idempotencyKey: 'my-own-key' }));
    assert.ok(isOrdergateError(error, 'payOrder') && error.is(code), code);
    assert.deepEqual([error.status, error.retryable, error.order, error.idempotencyKey, requests.length], [status, false, null, 'my-own-key', 1]);
    if (error.is('PAY_007')) assert.equal(error.problem.decline_reason, 'insufficient_funds');
  }
});

test('a payment is repeated with its key while the provider is unavailable', async (t) => {
  const { og, requests } = await setup(t, [problem(503, 'PAY_008', true, {}, NOW), 'hang up', { status: 201, body: { id: 'pay_1', status: 'captured' } }]);
  assert.equal((await og.orders.pay('ord_', { method_token: 'pm' })).status, 'captured');
  assert.equal(new Set(requests.map(({ headers }) => headers['idempotency-key'])).size, 1);
  assert.equal(requests.length, 3);
});

test('a refund that the provider refused is an answer, and one that is too large a refusal', async (t) => {
  const failed = { id: 'ref_1', status: 'failed', failure: { code: 'PAY_006', message: 'no', decline_reason: null } };
  const refundable = { amount: 3, currency: 'EUR' };
  const { og } = await setup(t, [{ status: 201, body: failed }, { status: 202, body: { ...failed, status: 'bounced' } }, problem(422, 'RFD_001', false, { refundable })]);
  assert.deepEqual(await og.payments.refund('pay_1', { reason: 'r' }, { waitSeconds: 1 }), failed);
  assert.equal((await og.payments.refund('pay_1', { reason: 'r' })).status, 'UNKNOWN', 'a status that is newer than this package');
  const error = await thrown(og.payments.refund('pay_1', { reason: 'r', amount: { amount: 4, currency: 'EUR' } }));
  assert.ok(isOrdergateError(error, 'refundPayment') && error.is('RFD_001'));
  assert.deepEqual(error.problem.refundable, refundable);
});

test('a change is a merge patch of the state that it names', async (t) => {
  const { og, requests } = await setup(t, [{ body: { sku: 'A', low_stock_at: null }, headers: { ETag: '"2-b"' } }]);
  const product = await og.products.update('A', { name: 'b', low_stock_at: null }, { ifMatch: '"1-a"' });
  assert.equal(og.meta(product).etag, '"2-b"');
  const [{ headers, body }] = requests;
  assert.deepEqual([headers['if-match'], headers['content-type'], headers['idempotency-key'], headers['x-consistency-token']], ['"1-a"', 'application/merge-patch+json', undefined, undefined]);
  assert.deepEqual(body, { name: 'b', low_stock_at: null });
});

test('a change whose outcome is not known is repeated only if it names any state', async (t) => {
  for (const [name, answer] of Object.entries({ NETWORK: 'hang up', SYS_001: problem(500, 'SYS_001', true, {}, NOW), SYS_006: problem(503, 'SYS_006', true, {}, NOW), UNKNOWN: { status: 502, headers: NOW, body: 'x' } })) {
    const { og, requests } = await setup(t, [answer, { body: { sku: 'A' } }]);
    assert.equal((await thrown(og.products.update('A', {}, { ifMatch: '"1-a"' }))).code, name);
    assert.equal(requests.length, 1);
  }
  for (const [answer, ifMatch] of [['hang up', '*'], [problem(503, 'SYS_005', true, {}, NOW), '"1-a"']]) {
    const { og, requests } = await setup(t, [answer, { body: { sku: 'A' } }]);
    await og.products.update('A', {}, { ifMatch });
    assert.equal(requests.length, 2);
  }
});

test('a stale change says which version is current', async (t) => {
  const { og } = await setup(t, [problem(412, 'REQ_010', false, { current_version: 3 })]);
  const error = await thrown(og.products.update('A', {}, { ifMatch: '"1-a"' }));
  assert.ok(isOrdergateError(error, 'updateProduct') && error.is('REQ_010'));
  assert.equal(error.problem.current_version, 3);
});

test('what a shipment can be refused with is typed, and its keys are repeated', async (t) => {
  const errors = [{ pointer: '/lines/0/quantity', rule: 'unshipped', message: 'is more than is left to ship, 1' }];
  const shipment = { id: 'shp_1', order_id: 'ord_', lines: [{ sku: 'A', quantity: 1 }], tracking: null, status: 'lost', version: 1 };
  const { og, requests } = await setup(t, [problem(422, 'SHP_002', false, { errors }), problem(503, 'SYS_002', true, {}, NOW), { status: 201, body: shipment }, problem(409, 'SHP_004')]);
  const error = await thrown(og.orders.ship('ord_', { lines: [{ sku: 'A', quantity: 2 }] }));
  assert.ok(isOrdergateError(error, 'shipOrder') && error.is('SHP_002'));
  assert.deepEqual(error.problem.errors, errors);
  assert.deepEqual(await og.orders.ship('ord_'), { ...shipment, status: 'UNKNOWN' });
  assert.equal(requests[1].headers['idempotency-key'], requests[2].headers['idempotency-key']);
  assert.deepEqual([requests[1].body, requests[1].headers['content-type']], ['', undefined]);
  const again = await thrown(og.shipments.deliver('shp_1'));
  assert.ok(isOrdergateError(again, 'deliverShipment') && again.is('SHP_004'));
});

test('the YAML contract comes as text', async (t) => {
  const { og } = await setup(t, [{ headers: { 'Content-Type': 'application/yaml' }, body: 'openapi: 3.1.0\n' }]);
  assert.equal(await og.contract.yaml(), 'openapi: 3.1.0\n');
});

test('a key that is a function is asked before every try', async (t) => {
  const keys = ['one', 'two'];
  const { og, requests } = await setup(t, [problem(503, 'SYS_005', true, {}, NOW), { body: order() }], { apiKey: async () => keys.shift() });
  await og.orders.get('ord_');
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ['Bearer one', 'Bearer two']);
});

for (const [name, answer] of Object.entries({
  'IDEM_003': problem(409, 'IDEM_003', true, {}, NOW),
  '429': problem(429, 'RATE_001', true, {}, NOW),
  'a retryable 503': problem(503, 'SYS_006', true, {}, NOW),
  'a retryable 504': problem(504, 'SYS_003', true, {}, NOW),
  'a 502 of a proxy': { status: 502, headers: { 'Content-Type': 'text/html', ...NOW }, body: '<h1>Bad gateway</h1>' },
  'a lost connection': 'hang up',
  'a refusal that breaks off': { status: 422, headers: NOW, cut: true },
  'an answer that breaks off': { status: 201, headers: NOW, cut: true },
  'half a document': { status: 201, headers: NOW, body: '{"id":' },
})) {
  test(`${name} is repeated with the same key and body`, async (t) => {
    const { og, requests } = await setup(t, [answer, answer, answer, { status: 201, body: order() }]);
    assert.equal((await og.orders.place(BODY, { waitSeconds: 1 })).status, 'confirmed');
    assert.equal(requests.length, 4);
    assert.equal(new Set(requests.map(({ headers }) => headers['idempotency-key'])).size, 1);
    for (const request of requests) assert.deepEqual([request.body, request.headers.prefer], [BODY, 'wait=1']);
  });
}

for (const [code, status, retryable] of [['INV_002', 409, true], ['ORD_009', 409, true], ['PAY_003', 504, false], ['CAT_005', 422, false], ['AUTH_002', 401, false]]) {
  test(`${code} is not repeated`, async (t) => {
    const { og, requests } = await setup(t, [problem(status, code, retryable, {}, NOW)]);
    assert.equal((await thrown(og.orders.place(BODY))).code, code);
    assert.equal(requests.length, 1);
  });
}

test('retries end, with the last refusal', async (t) => {
  const { og, requests } = await setup(t, [problem(503, 'SYS_002', true, {}, NOW)]);
  const error = await thrown(og.orders.place(BODY, { idempotencyKey: 'my-own-key' }));
  assert.deepEqual([error.code, error.status, error.retryable, error.idempotencyKey, requests.length], ['SYS_002', 503, true, 'my-own-key', 4]);
});

test('maxRetries: 0 repeats nothing', async (t) => {
  const { og, requests } = await setup(t, [problem(503, 'SYS_002', true, {}, NOW)], { maxRetries: 0 });
  await thrown(og.orders.get('ord_'));
  assert.equal(requests.length, 1);
});

test('Retry-After is kept to, and left to the caller when it is long', async (t) => {
  const { og, requests } = await setup(t, [
    problem(429, 'RATE_001', true, {}, { 'Retry-After': '1' }), { body: order() }, problem(429, 'RATE_001', true, {}, { 'Retry-After': '3600' }),
  ]);
  const start = performance.now();
  await og.orders.get('ord_');
  assert.ok(performance.now() - start >= 990, 'waited a second');
  const error = await thrown(og.orders.get('ord_'));
  assert.equal(og.meta(error).headers.get('Retry-After'), '3600');
  assert.equal(requests.length, 3);
});

test('without Retry-After the pauses grow', async (t) => {
  const times = [];
  const { og } = await setup(t, [() => (times.push(performance.now()), problem(500, 'SYS_001', true))], { maxRetries: 2 });
  await thrown(og.orders.get('ord_'));
  const [first, second] = [times[1] - times[0], times[2] - times[1]];
  assert.ok(first >= 120 && second >= 245 && first < 4_000 && second < 4_000, `${first} ${second}`);
});

test('no answer at all is NETWORK, with its cause and the key to repeat it with', async (t) => {
  const { og } = await setup(t, ['hang up'], { maxRetries: 0 });
  const error = await thrown(og.orders.place(BODY));
  assert.ok(isOrdergateError(error, 'placeOrder') && error.is('NETWORK'));
  assert.deepEqual([error.status, error.retryable, error.problem.instance], [0, true, '/v1/orders']);
  assert.match(error.idempotencyKey, UUID);
  assert.ok(error.cause instanceof Error);
});

test('a try that takes too long is given up and repeated', async (t) => {
  const { og, requests } = await setup(t, [() => new Promise(() => {})], { timeoutMs: 500, maxRetries: 1 });
  const error = await thrown(og.orders.get('ord_'));
  assert.deepEqual([error.code, error.cause.name, requests.length], ['NETWORK', 'TimeoutError', 2]);
});

test('an abort ends a request that is under way, with its reason', async (t) => {
  const stop = new AbortController();
  const { og, requests } = await setup(t, [() => (stop.abort(new Error('user left')), new Promise(() => {}))]);
  const error = await thrown(og.orders.place(BODY, { signal: stop.signal }));
  assert.ok(isOrdergateError(error, 'placeOrder') && error.is('ABORTED'));
  assert.deepEqual([error.cause.message, error.status, error.retryable], ['user left', 0, true]);
  assert.equal(error.idempotencyKey, requests[0].headers['idempotency-key'], 'the order may exist: the key finds it');
  assert.equal(requests.length, 1);
});

test('an abort ends a pause before a retry', async (t) => {
  const stop = new AbortController();
  const refusal = problem(503, 'SYS_002', true, {}, { 'Retry-After': '20' });
  const { og, requests } = await setup(t, [() => (setTimeout(() => stop.abort(), 100), refusal)]);
  const start = performance.now();
  assert.equal((await thrown(og.orders.get('ord_', { signal: stop.signal }))).cause.name, 'AbortError');
  assert.ok(performance.now() - start < 5_000);
  assert.equal(requests.length, 1);
  assert.equal((await thrown(og.orders.get('ord_', { signal: stop.signal }))).cause.name, 'AbortError');
  assert.equal(requests.length, 1, 'what is aborted before is never sent');
});

test('what cannot be sent is thrown as it is, at once', async (t) => {
  const { og, requests } = await setup(t, [{ body: order() }]);
  assert.match((await thrown(og.orders.place(BODY, { idempotencyKey: 'a\nb' }))).message, /header/i);
  assert.match((await thrown(og.orders.place({ ...BODY, customer_ref: 5n }))).message, /BigInt/);
  assert.equal(requests.length, 0);
});

test('the greatest consistency token is sent with reads for five seconds', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: 1_000_000 });
  let answered;
  const { og, requests } = await setup(t, [() => ({ body: { ...order(), sku: 'A' }, headers: answered ? { 'X-Consistency-Token': answered } : {} })]);
  /** Answers the request with this token and says which it was sent with. */
  const after = async (token, request) => ((answered = token), await request(), requests.at(-1).headers['x-consistency-token']);
  const read = () => og.orders.get('ord_');
  assert.equal(await after('1.05', () => og.orders.place(BODY)), undefined, 'nothing was seen yet');
  assert.equal(await after('1.03', read), '1.05', 'the token of the write');
  assert.equal(await after('1.07', () => og.products.get('A')), '1.05', 'a smaller one does not replace it');
  assert.equal(await after('1.07', () => og.orders.place(BODY)), undefined, 'writes send none');
  t.mock.timers.tick(4_999);
  assert.equal(await after(undefined, read), '1.07', 'a greater one does');
  t.mock.timers.tick(1);
  assert.equal(await after('1.01', read), undefined, 'five seconds are over');
  assert.equal(await after('1.02', () => og.orders.get('ord_', { consistencyToken: '1.09' })), '1.09', 'a token of yours goes first');
  assert.equal(await after('1.02', read), '1.02', 'after the five seconds the next one counts, smaller or not');
});

test('the token of a refusal counts too', async (t) => {
  const { og, requests } = await setup(t, [problem(409, 'ORD_007', false, {}, { 'X-Consistency-Token': '1.04' }), { body: order() }]);
  await thrown(og.orders.cancel('ord_'));
  await og.orders.get('ord_');
  assert.equal(requests[1].headers['x-consistency-token'], '1.04');
});

test('a refusal is thrown with all that it says', async (t) => {
  const money = (amount) => ({ amount, currency: 'EUR' });
  const { og } = await setup(t, [problem(422, 'ORD_004', false, { sku: 'A', expected: money(1), actual: money(2) })]);
  const error = await thrown(og.orders.place(BODY));
  assert.ok(error instanceof Error && isOrdergateError(error));
  assert.ok(isOrdergateError(error, 'placeOrder') && !isOrdergateError(error, 'getOrder'));
  assert.ok(error.is('ORD_004') && !error.is('CAT_005'));
  assert.deepEqual([error.code, error.status, error.retryable, error.traceId, error.message, error.order], ['ORD_004', 422, false, 'trace-1', 'ORD_004 no [trace id trace-1]', null]);
  assert.deepEqual(error.problem.actual, money(2));
  assert.equal(og.meta(error).status, 422);
  assert.ok(!isOrdergateError(new Error('x')) && !isOrdergateError(null));
});

test('the message names the scopes that a key needs', async (t) => {
  const { og } = await setup(t, [problem(403, 'AUTH_005', false, { required_scopes: ['orders:write'] }), problem(403, 'AUTH_005', false, { required_scopes: ['a', 'b'] })]);
  const error = await thrown(og.orders.place(BODY));
  assert.ok(isOrdergateError(error, 'placeOrder') && error.is('AUTH_005'));
  assert.deepEqual([error.message, error.problem.required_scopes], ['AUTH_005 no (orders:write) [trace id trace-1]', ['orders:write']]);
  assert.equal((await thrown(og.orders.place(BODY))).message, 'AUTH_005 no (a,b) [trace id trace-1]');
});

test('a search for nothing is none; any other filter is sent as it is', async (t) => {
  const { og, requests } = await setup(t, [{ body: { data: [], next_cursor: 'more' } }]);
  const first = og.products.list({ q: '', limit: 5 });
  for (const list of [first, og.products.list({ limit: 5, q: 'tea' }), og.products.list(), og.orders.list({ customer_ref: '' })]) await list.page();
  assert.deepEqual(requests.map(({ url }) => url), ['/v1/products?limit=5', '/v1/products?limit=5&q=tea', '/v1/products', '/v1/orders?customer_ref=']);
});

test('the message names the first fault', async (t) => {
  const faults = [{ pointer: '/lines/0/quantity', rule: 'minimum', message: 'must be at least 1' }, { pointer: '/x', rule: 'type', message: 'second' }];
  const whole = { pointer: '', rule: 'required', message: 'is required' };
  const { og } = await setup(t, [problem(400, 'REQ_002', false, { errors: faults }), problem(400, 'REQ_001', false, { errors: [whole] })]);
  assert.equal((await thrown(og.orders.place(BODY))).message, 'REQ_002 no (/lines/0/quantity: must be at least 1) [trace id trace-1]');
  assert.equal((await thrown(og.orders.place(BODY))).message, 'REQ_001 no (is required) [trace id trace-1]');
});

test('a time to wait that the server would ignore is refused before anything is sent', async (t) => {
  const { og, requests } = await setup(t, [{ body: order() }]);
  const waits = [
    (options) => og.orders.place(BODY, options), (options) => og.orders.cancel('ord_', options), (options) => og.orders.cancel('ord_', { reason: 'r' }, options),
    (options) => og.orders.pay('ord_', { method_token: 'pm' }, options), (options) => og.payments.refund('pay_1', { reason: 'r' }, options),
  ];
  for (const wait of waits) {
    for (const waitSeconds of [1.5, 11, -1, NaN, Infinity, '5', null, true]) {
      const error = await thrown(wait({ waitSeconds }));
      assert.ok(error instanceof TypeError);
      assert.equal(error.message, `waitSeconds must be a whole number from 0 to 10; it is ${waitSeconds === '5' ? '"5"' : waitSeconds}`);
    }
  }
  assert.equal(requests.length, 0);
  for (const waitSeconds of [0, undefined, 1, 10]) await og.orders.place(BODY, { waitSeconds });
  assert.deepEqual(requests.map(({ headers }) => headers.prefer), [undefined, undefined, 'wait=1', 'wait=10']);
});

test('a change that names no state is refused before anything is sent', async (t) => {
  const { og, requests } = await setup(t, [{ body: order() }]);
  for (const options of [undefined, null, {}, { ifMatch: undefined }, { ifMatch: null }, { ifMatch: '' }]) {
    for (const change of [() => og.orders.update('ord_', {}, options), () => og.products.update('A', {}, options)]) {
      const error = await thrown(change());
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /^ifMatch must be an ETag /);
    }
  }
  assert.equal(requests.length, 0);
});

test('an address that cannot be one is refused at once', () => {
  assert.throws(() => createOrdergate(), /^TypeError: baseUrl must be like .* it is undefined$/);
  for (const baseUrl of [undefined, null, '', 'localhost:8080', '127.0.0.1:8080', '//h', 'ftp://h', 'http://', 'http://h/v1', 'https://h/v1/', 'http://h?a=b', 'http://h/?a', 'https://user:secret@h', 'https://user@h/orders']) {
    assert.throws(() => createOrdergate({ baseUrl, apiKey: 'k' }), /^TypeError: baseUrl must be like http:\/\/127\.0\.0\.1:8080, without \/v1 or a password; it is /, baseUrl);
  }
  for (const baseUrl of ['http://localhost:8080', 'https://h/', 'http://[::1]:8080', 'https://h/orders', 'https://h/a@b', new URL('http://h')]) createOrdergate({ baseUrl, apiKey: 'k' });
  assert.throws(() => createOrdergate({ baseUrl: 'https://user:secret@h', apiKey: 'k' }), (error) => !error.message.includes('secret'));
});

test('the options of a cancellation stand beside its reason or in an object of their own', async (t) => {
  const { og, requests } = await setup(t, [{ body: order() }]);
  await og.orders.cancel('ord_', { waitSeconds: 5 });
  await og.orders.cancel('ord_', { reason: 'r', waitSeconds: 5, idempotencyKey: 'my-own-key', traceId: 'mine-1' });
  await og.orders.cancel('ord_', { reason: 'r' }, { waitSeconds: 5, idempotencyKey: 'my-own-key', traceId: 'mine-1' });
  const sent = requests.map(({ body, headers }) => [body, headers.prefer, headers['idempotency-key'], headers['x-trace-id']]);
  assert.deepEqual(sent[0].slice(0, 2), ['', 'wait=5']);
  assert.deepEqual(sent.slice(1), [[{ reason: 'r' }, 'wait=5', 'my-own-key', 'mine-1'], [{ reason: 'r' }, 'wait=5', 'my-own-key', 'mine-1']]);
});

test('a code that is newer than the package is UNKNOWN, with the whole answer', async (t) => {
  const { og } = await setup(t, [problem(422, 'NEW_001', false, { hint: 'x' })]);
  const error = await thrown(og.orders.place(BODY));
  assert.deepEqual([error.code, error.status, error.traceId, error.message], ['UNKNOWN', 422, 'trace-1', 'UNKNOWN no [trace id trace-1]']);
  assert.deepEqual([error.problem.body.code, error.problem.body.hint], ['NEW_001', 'x']);
});

test("what is not Ordergate's is UNKNOWN, and says who answered", async (t) => {
  const { og, baseUrl } = await setup(t, [{ status: 403, headers: { 'Content-Type': 'text/html' }, body: '<h1>Firewall</h1>' }]);
  const error = await thrown(og.orders.get('ord_'));
  assert.deepEqual([error.code, error.status, error.retryable, error.problem.body], ['UNKNOWN', 403, false, '<h1>Firewall</h1>']);
  assert.equal(error.message, `UNKNOWN HTTP 403 from ${baseUrl}, text/html. Wrong baseUrl? [trace id trace-1]`);
});

test('an order that ends rejected is thrown as the refusal that it would have been', async (t) => {
  const skus = [{ sku: 'A', requested: 2, available: 1 }];
  const rejected = (rejection) => order({ status: 'rejected', rejection: { title: 'A title', detail: 'A detail', retryable: false, skus: null, decline_reason: null, ...rejection } });
  const short = rejected({ code: 'INV_002', title: 'Not enough stock', message: 'There is not enough stock', detail: 'Order fewer.', skus });
  const declined = rejected({ code: 'PAY_007', message: 'Declined', decline_reason: 'insufficient_funds' });
  const newer = rejected({ code: 'PAY_099', title: 'Newer', message: 'Something new', detail: 'Do something.' });
  const { og, requests } = await setup(t, [short, declined, newer].map((body) => ({ status: 201, body })));

  const first = await thrown(og.orders.place(BODY, { waitSeconds: 5 }));
  assert.ok(isOrdergateError(first, 'placeOrder') && first.is('INV_002'));
  assert.deepEqual(first.problem.skus, skus);
  assert.deepEqual([first.status, first.message, first.traceId], [409, 'INV_002 There is not enough stock [trace id trace-1]', 'trace-1']);
  assert.deepEqual([first.problem.title, first.problem.detail], ['Not enough stock', 'Order fewer.']);
  assert.equal(first.retryable, false, 'under its key the order is what it is');
  assert.deepEqual(first.order, short);
  assert.equal(first.idempotencyKey, requests[0].headers['idempotency-key']);
  assert.equal(og.meta(first).status, 201);

  const second = await thrown(og.orders.place(BODY, { waitSeconds: 5 }));
  assert.deepEqual([second.code, second.status, second.problem.decline_reason], ['PAY_007', 422, 'insufficient_funds']);

  const third = await thrown(og.orders.place(BODY, { waitSeconds: 5 }));
  assert.deepEqual([third.code, third.problem.message, third.order.rejection.code], ['UNKNOWN', 'Something new', 'UNKNOWN']);
  assert.deepEqual([third.problem.title, third.problem.detail], ['Newer', 'Do something.']);

  assert.deepEqual(requests.length, 3, 'none was repeated');
  assert.equal((await og.orders.cancel('ord_')).status, 'rejected', 'only placing throws it');
});

test('values that are newer than the package are UNKNOWN, and nothing else is touched', async (t) => {
  const step = { name: 'teleport', status: 'glowing', attempt: 1, tries: 1, last_error: { code: 'ABC_001', message: 'm' }, next_try_at: null, started_at: null, finished_at: null };
  const answers = {
    '/v1/orders/1': order({ status: 'archived', payment_status: 'pledged', fulfillment_status: 'partial', customer_ref: 'archived' }),
    '/v1/orders': { data: [order(), order({ status: 'archived' })], next_cursor: null },
    '/v1/orders/1/events': { data: [{ type: 'order.archived', data: { status: 'archived' } }, { type: 'order.paid', data: {} }], next_cursor: null },
    '/v1/orders/1/saga': { order_id: '1', state: 'dreaming', steps: [step, { ...step, name: 'capture', status: 'done' }] },
  };
  const { og } = await setup(t, [({ method, url }) => (method === 'GET' ? { body: answers[url] } : problem(409, 'ORD_002', false, { from: 'archived', allowed: ['archived', 'completed'] }))]);
  assert.deepEqual(await og.orders.get('1'), order({ status: 'UNKNOWN', payment_status: 'UNKNOWN', fulfillment_status: 'partial', customer_ref: 'archived' }));
  assert.deepEqual((await og.orders.list().page()).data.map(({ status }) => status), ['confirmed', 'UNKNOWN']);
  const events = (await og.orders.events('1').page()).data;
  assert.deepEqual(events, [{ type: 'UNKNOWN', data: { status: 'archived' } }, { type: 'order.paid', data: {} }]);
  const saga = await og.orders.saga('1');
  assert.deepEqual([saga.state, ...saga.steps.map(({ name, status }) => `${name} ${status}`)], ['UNKNOWN', 'UNKNOWN UNKNOWN', 'capture done']);
  assert.equal(saga.steps[0].last_error.code, 'ABC_001');
  const { problem: refusal } = await thrown(og.orders.cancel('1'));
  assert.deepEqual([refusal.code, refusal.from, refusal.allowed], ['ORD_002', 'UNKNOWN', ['UNKNOWN', 'completed']]);
});

test('a list is read page by page, and only as far as it is asked', async (t) => {
  const page = (n, next_cursor) => ({ body: { data: [order({ version: n }), order({ version: n + 1 })], next_cursor }, headers: { ETag: `"${n}"` } });
  const { og, requests } = await setup(t, [page(1, 'a/b'), page(3, null), page(1, 'a/b')]);
  const list = og.orders.list({ status: 'confirmed', limit: 2 });
  assert.equal(requests.length, 0, 'nothing is sent before it is read');
  const versions = [];
  for await (const { version } of list) versions.push(version);
  assert.deepEqual(versions, [1, 2, 3, 4]);
  for await (const _ of list) break;
  const first = await list.page();
  assert.equal(first.next_cursor, 'a/b');
  assert.equal(og.meta(first).etag, '"1"');
  await og.orders.list({ cursor: 'a/b' }).page();
  assert.deepEqual(requests.map(({ url }) => url), [
    '/v1/orders?status=confirmed&limit=2', '/v1/orders?status=confirmed&limit=2&cursor=a%2Fb',
    '/v1/orders?status=confirmed&limit=2', '/v1/orders?status=confirmed&limit=2', '/v1/orders?cursor=a%2Fb',
  ]);
});

test('an iteration throws the error of the list', async (t) => {
  const { og } = await setup(t, [problem(400, 'REQ_012')]);
  const error = await thrown((async () => { for await (const _ of og.orders.list({ cursor: 'x' })); })());
  assert.ok(isOrdergateError(error, 'listOrders') && error.is('REQ_012'));
});

test('what is still current is null, and only with ifNoneMatch is it asked', async (t) => {
  const { og, requests } = await setup(t, [({ headers }) => (headers['if-none-match'] ? { status: 304, headers: { ETag: '"5"' } } : { body: order(), headers: { ETag: '"5"' } })]);
  const { etag } = og.meta(await og.orders.get('ord_'));
  assert.equal(await og.orders.get('ord_', { ifNoneMatch: etag }), null);
  assert.equal(await og.orders.list().page({ ifNoneMatch: etag }), null);
  assert.deepEqual(requests.map(({ headers }) => headers['if-none-match']), [undefined, '"5"', '"5"']);
});

test('meta tells what stood around an answer', async (t) => {
  const headers = { ETag: '"5"', 'X-Served-By': 'lru', Age: '1', 'X-Consistency-Token': '1.05', 'Idempotency-Replayed': 'true' };
  const { og } = await setup(t, [{ status: 202, body: order(), headers }]);
  const { headers: all, ...meta } = og.meta(await og.orders.place(BODY));
  assert.deepEqual(meta, { status: 202, traceId: 'trace-1', etag: '"5"', servedBy: 'lru', age: 1, consistencyToken: '1.05', replayed: true, rateLimit: null });
  assert.equal(all.get('content-type'), 'application/json');
  assert.equal(og.meta({}), undefined);
});

test('a fetch of yours is used', async (t) => {
  const seen = [];
  const fetch = async (url, init) => (seen.push(url), assert.equal(init.method, 'GET'), Response.json(order({ version: 9 })));
  const { og, requests } = await setup(t, [], { fetch });
  assert.equal((await og.orders.get('ord_')).version, 9);
  assert.match(seen[0], /\/v1\/orders\/ord_$/);
  assert.equal(requests.length, 0);
});

test('hooks see every try, never the key, and break nothing', async (t) => {
  const seen = [];
  const hook = (name) => (event) => {
    seen.push([name, event]);
    throw new Error('a broken hook');
  };
  const hooks = { onRequest: hook('request'), onResponse: hook('response'), onRetry: async (event) => hook('retry')(event) };
  const headers = { 'X-Served-By': 'redis', Age: '2' };
  const { og } = await setup(t, ['hang up', problem(503, 'SYS_002', true, {}, NOW), { status: 201, body: order(), headers }, problem(404, 'ORD_001')], hooks);
  await og.orders.place(BODY, { idempotencyKey: 'my-own-key' });
  assert.deepEqual(seen.map(([name, { attempt }]) => `${name} ${attempt}`), [
    'request 1', 'response 1', 'retry 1', 'request 2', 'response 2', 'retry 2', 'request 3', 'response 3',
  ]);
  const [first] = seen[0].slice(1);
  assert.deepEqual([first.operation, first.method, first.path, first.body], ['placeOrder', 'POST', '/v1/orders', BODY]);
  assert.match(first.url, /^http:\/\/127\.0\.0\.1:\d+\/v1\/orders$/);
  assert.equal(first.headers['idempotency-key'], 'my-own-key');
  assert.ok(!JSON.stringify(seen).includes('og_test_key'), 'the key is in no event');
  const responses = seen.filter(([name]) => name === 'response').map(([, event]) => event);
  assert.deepEqual(responses.map(({ status, problem }) => [status, problem?.code ?? null]), [[0, 'NETWORK'], [503, 'SYS_002'], [201, null]]);
  assert.deepEqual([responses[0].meta, responses[2].meta.servedBy, responses[2].meta.age, responses[2].meta.traceId], [null, 'redis', 2, 'trace-1']);
  assert.ok(responses.every(({ durationMs }) => durationMs > 0 && durationMs < 5_000));
  assert.equal(seen.find(([name, { attempt }]) => name === 'retry' && attempt === 2)[1].pauseMs < 200, true);
  await thrown(og.orders.get('ord_', { traceId: 'mine-1' }));
  const [, last] = seen.at(-1);
  assert.deepEqual([last.method, last.path, last.status, last.problem.code, last.headers['x-trace-id']], ['GET', '/v1/orders/ord_', 404, 'ORD_001', 'mine-1']);
});

test('no hook sees the key, wherever it was given', async (t) => {
  const seen = [];
  const hook = (event) => seen.push(event);
  const { og } = await setup(t, [{ body: order() }], { apiKey: async () => 'og_test_secret', headers: { Cookie: 'og_test_secret' }, onRequest: hook, onResponse: hook });
  await og.orders.get('ord_', { headers: { authorization: 'og_test_secret', 'X-App': 'shop' } });
  assert.equal(seen.length, 2);
  assert.ok(!JSON.stringify(seen).includes('og_test_secret'));
  assert.equal(seen[0].headers['x-app'], 'shop');
});

test('a key that is none is told without the key', async (t) => {
  assert.throws(() => createOrdergate({ baseUrl: 'http://h', apiKey: 'og_test_secret\n' }), (error) => error instanceof TypeError && !error.message.includes('secret'));
  for (const key of ['og_test_secret 2', 'og_test_secret\n', '', undefined, null]) {
    const { og, requests } = await setup(t, [{ body: order() }], { apiKey: () => key });
    const error = await thrown(og.orders.place(BODY));
    assert.ok(error instanceof TypeError && !isOrdergateError(error), `${key}`);
    assert.equal(error.message, `apiKey must be visible ASCII or a function; it is ${key ? 'not' : JSON.stringify(key)}`);
    assert.deepEqual([error.message.includes('secret'), requests.length], [false, 0]);
  }
});

test('an error of the function that gives the key is thrown as it is, at once', async (t) => {
  const own = new Error('the vault is sealed');
  for (const apiKey of [async () => { throw own; }, () => { throw own; }]) {
    let asked = 0;
    const { og, requests } = await setup(t, [{ body: order() }], { apiKey: () => (asked++, apiKey()) });
    assert.equal(await thrown(og.orders.place(BODY)), own);
    assert.deepEqual([asked, requests.length], [1, 0]);
  }
});

test('a client without a key is refused at once', () => {
  for (const apiKey of [undefined, null, '', 5, {}]) assert.throws(() => createOrdergate({ baseUrl: 'http://h', apiKey }), /^TypeError: apiKey must be visible ASCII or a function; it is /, `${apiKey}`);
});

test('a key that comes after the abort or the time-out sends nothing', async () => {
  for (const [options, code, cause] of [[{ timeoutMs: 50, maxRetries: 0 }, 'NETWORK', 'TimeoutError'], [{ get signal() { return AbortSignal.timeout(50); } }, 'ABORTED', 'TimeoutError']]) {
    let give;
    const sent = [];
    const og = createOrdergate({ baseUrl: 'http://h', apiKey: () => new Promise((resolve) => { give = resolve; }), fetch: async (url) => (sent.push(url), Response.json(order())) });
    const error = await thrown(og.orders.place(BODY, { ...options }));
    assert.deepEqual([error.code, error.cause.name], [code, cause]);
    give('og_test_key');
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(sent.length, 0);
  }
});

test('a 304 that nobody asked for is an error, which keeps the key', async (t) => {
  const { og } = await setup(t, [{ status: 304 }]);
  const error = await thrown(og.orders.place(BODY, { idempotencyKey: 'my-own-key' }));
  assert.deepEqual([error.code, error.status, error.idempotencyKey], ['UNKNOWN', 304, 'my-own-key']);
  for (const read of [() => og.orders.get('ord_'), () => og.orders.list().page(), () => og.orders.list()[Symbol.asyncIterator]().next(), () => og.contract.yaml()]) assert.equal((await thrown(read())).code, 'UNKNOWN');
});

test('a text that does not come is an error', async (t) => {
  const { og } = await setup(t, [{ status: 204, headers: { 'Content-Type': 'application/yaml' } }]);
  assert.equal((await thrown(og.contract.yaml())).code, 'UNKNOWN');
});

test('the body of a redirection is cancelled', async () => {
  let cancelled = false;
  const body = new ReadableStream({ cancel: () => { cancelled = true; } });
  const og = createOrdergate({ baseUrl: 'http://h', apiKey: 'k', fetch: async () => new Response(body, { status: 302, headers: { Location: '/x' } }) });
  const error = await thrown(og.orders.get('ord_'));
  assert.deepEqual([error.code, error.status, cancelled], ['UNKNOWN', 302, true]);
  assert.equal(error.message, 'UNKNOWN HTTP 302 from http://h, Location: /x. Wrong baseUrl?');
});

test('a page is told of CORS when the gateway is of another origin', async (t) => {
  t.after(() => { delete globalThis.location; });
  globalThis.location = { origin: 'http://h:808' };
  for (const [baseUrl, told] of [['http://h:8080', true], ['http://h:808', false], ['http://H:808/orders', false], ['https://h:808', true]]) {
    const og = createOrdergate({ baseUrl, apiKey: 'k', maxRetries: 0, fetch: async () => { throw new TypeError('Failed to fetch'); } });
    assert.equal((await thrown(og.orders.get('ord_'))).message.includes('CORS'), told, baseUrl);
  }
});

test('a refusal without a trace id has that of the headers, and the status of the answer', async (t) => {
  const { og } = await setup(t, [{ ...problem(404, 'ORD_001', false, { trace_id: undefined, status: 200 }) }]);
  const error = await thrown(og.orders.get('ord_'));
  assert.deepEqual([error.code, error.status, error.traceId, error.message], ['ORD_001', 404, 'trace-1', 'ORD_001 no [trace id trace-1]']);
  assert.deepEqual([error.problem.status, error.problem.trace_id], [404, 'trace-1']);
});

test('a Retry-After that is neither seconds nor an HTTP date is none', async (t) => {
  for (const after of ['soon', '-5', '1.5', '-5 GMT', new Date(Date.now() - 60_000).toISOString()]) {
    let pause;
    const { og } = await setup(t, [problem(503, 'SYS_002', true, {}, { 'Retry-After': after }), { body: order() }], { onRetry: ({ pauseMs }) => { pause = pauseMs; } });
    await og.orders.get('ord_');
    assert.ok(pause >= 125 && pause <= 250, `${after}: ${pause} ms`);
  }
});

test('a list that begins at a cursor and gives it again has no end', async (t) => {
  const { og, requests } = await setup(t, [{ body: { data: [], next_cursor: 'a' } }]);
  const error = await thrown(og.orders.list({ cursor: 'a' })[Symbol.asyncIterator]().next());
  assert.deepEqual([error.code, requests.length], ['UNKNOWN', 1]);
});

test('options stand in the config or for one request', async (t) => {
  const { og, requests } = await setup(t, [() => new Promise(() => {})], { timeoutMs: 500, maxRetries: 0, headers: { 'X-App': 'shop', 'X-Page': 'basket' } });
  await thrown(og.orders.get('ord_', { headers: { 'X-Page': 'order', 'X-Left-Out': undefined }, maxRetries: 1 }));
  assert.equal(requests.length, 2);
  const { headers } = requests[0];
  assert.deepEqual([headers['x-app'], headers['x-page'], headers['x-left-out'], headers.authorization], ['shop', 'order', undefined, 'Bearer og_test_key']);
  const seen = [];
  const fetch = async (url, init) => (seen.push([url, init.method]), Response.json(order()));
  await og.orders.get('ord_', { fetch, timeoutMs: undefined, maxRetries: undefined });
  assert.match(seen[0].join(), /\/v1\/orders\/ord_,GET$/);
  assert.equal(requests.length, 2);
});

test('a time-out of any length is kept to, and nonsense is refused', async (t) => {
  for (const timeoutMs of [Infinity, 3e9, 2 ** 31]) {
    const { og } = await setup(t, [() => new Promise((resolve) => setTimeout(resolve, 50, { body: order() }))], { timeoutMs, maxRetries: 0 });
    assert.equal((await og.orders.get('ord_')).status, 'confirmed', `${timeoutMs}`);
  }
  const { og, requests } = await setup(t, [{ body: order() }]);
  for (const bad of [{ timeoutMs: NaN }, { timeoutMs: 0 }, { timeoutMs: -1 }, { timeoutMs: '30s' }, { maxRetries: -1 }, { maxRetries: NaN }, { maxRetries: 'x' }]) {
    assert.throws(() => createOrdergate({ baseUrl: 'http://h', apiKey: 'k', ...bad }), TypeError);
    assert.ok((await thrown(og.orders.get('ord_', bad))) instanceof TypeError);
  }
  assert.equal(requests.length, 0);
});

test('a wait is no longer than a try may take', async (t) => {
  const { og, requests } = await setup(t, [{ body: order({ status: 'pending' }) }]);
  for (const timeoutMs of [1_500, 1_499, 4_700, 10_500, Infinity]) await og.orders.place(BODY, { waitSeconds: 10, timeoutMs });
  assert.deepEqual(requests.map(({ headers }) => headers.prefer), ['wait=1', undefined, 'wait=4', 'wait=10', 'wait=10']);
});

test('an id that would ask another address is refused', async (t) => {
  const { og, requests } = await setup(t, [{ body: order() }]);
  for (const id of ['', '.', '..', undefined, null, 5]) assert.ok((await thrown(og.orders.get(id))) instanceof TypeError, `${id}`);
  assert.equal(requests.length, 0);
  await og.orders.get('a?b#c/../d');
  assert.equal(requests[0].url, '/v1/orders/a%3Fb%23c%2F..%2Fd');
});

test('meta tells what the rate limit leaves', async (t) => {
  const limits = (policy, state) => ({ body: order(), headers: { 'RateLimit-Policy': policy, RateLimit: state } });
  const { og } = await setup(t, [
    limits('"default";q=100;w=60', '"default";r=0;t=12'), limits('"burst";w=1;q=5,"day";q=1000;w=86400', '"burst"; r=4; t=1, "day"; r=7; t=9'), { body: order(), headers: { RateLimit: 'rubbish' } }, { body: order() },
  ]);
  const limit = async () => og.meta(await og.orders.get('ord_')).rateLimit;
  assert.deepEqual(await limit(), { limit: 100, remaining: 0, resetSeconds: 12, windowSeconds: 60 });
  assert.deepEqual(await limit(), { limit: 5, remaining: 4, resetSeconds: 1, windowSeconds: 1 });
  assert.deepEqual([await limit(), await limit()], [null, null]);
});

test('a key is a UUID in a page without https, too', async (t) => {
  const { og, requests } = await setup(t, [{ status: 201, body: order() }]);
  t.mock.method(crypto, 'randomUUID', () => assert.fail('pages that are not secure have none'));
  for (let i = 0; i < 50; i++) await og.orders.place(BODY);
  const keys = requests.map(({ headers }) => headers['idempotency-key']);
  assert.equal(new Set(keys).size, 50);
  for (const key of keys) assert.match(key, UUID);
});

test('an order is waited for until nothing is under way, and a rejection is thrown as place throws it', async (t) => {
  const saga = (state) => ({ body: { order_id: 'ord_1', state, steps: [] } });
  const rejection = { code: 'PAY_007', title: 't', message: 'm', detail: 'd', retryable: false, skus: null, decline_reason: 'stolen' };
  const { og, requests } = await setup(t, [
    saga('running'), saga('done'), { body: order({ status: 'pending' }) }, saga('compensating'), saga('done'), { body: order({ status: 'rejected', rejection }) }, saga('done'), { body: order() }, saga('running'),
  ]);
  const error = await thrown(og.orders.settled('ord_1'));
  assert.ok(isOrdergateError(error, 'placeOrder') && error.is('PAY_007'));
  assert.deepEqual([error.problem.decline_reason, error.order.status, error.idempotencyKey], ['stolen', 'rejected', null]);
  assert.equal(requests.length, 6);
  assert.equal((await og.orders.settled('ord_1', { traceId: 'mine-1' })).status, 'confirmed');
  assert.deepEqual(requests.slice(6).map(({ headers }) => headers['x-trace-id']), ['mine-1', 'mine-1']);
  const late = await thrown(og.orders.settled('ord_1', { signal: AbortSignal.timeout(300) }));
  assert.deepEqual([late.code, late.cause.name], ['ABORTED', 'TimeoutError']);
});

test('a stream that ends again and again without a word is given up', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let opened = 0;
  const fetch = async () => (opened++, new Response('', { headers: { 'Content-Type': 'text/event-stream' } }));
  const og = createOrdergate({ baseUrl: 'http://h', apiKey: 'k', fetch });
  let open = true;
  const ended = thrown(og.orders.watch('ord_1').next()).finally(() => { open = false; });
  while (open) await new Promise(setImmediate), t.mock.timers.tick(100);
  const error = await ended;
  assert.ok(isOrdergateError(error, 'streamOrder') && error.is('UNKNOWN') && !error.retryable);
  assert.ok(opened > 10 && opened < 20, `${opened} streams`);
});

test('leaving the loop closes the stream', async () => {
  let cancelled = false;
  const body = new ReadableStream({ start: (c) => c.enqueue(new TextEncoder().encode(`:\n\n${event(1)}${event(2)}`)), cancel: () => { cancelled = true; } });
  const og = createOrdergate({ baseUrl: 'http://h', apiKey: 'k', fetch: async () => new Response(body, { headers: { 'Content-Type': 'text/event-stream' } }) });
  for await (const { sequence } of og.orders.watch('ord_1')) if (sequence === 1) break;
  assert.ok(cancelled);
});

test('the parts that share a transport share its token and its meta', async (t) => {
  const { baseUrl, requests } = await setup(t, [{ body: { ...order(), sku: 'A' }, headers: { 'X-Consistency-Token': '1.05' } }]);
  const transport = createTransport({ baseUrl, apiKey: 'k' });
  const og = { orders: new Orders(transport), products: new Products(transport) };
  const read = await og.orders.get('ord_');
  await og.products.get('A');
  assert.equal(transport.meta(read).consistencyToken, '1.05');
  assert.equal(requests[1].headers['x-consistency-token'], '1.05');
});
