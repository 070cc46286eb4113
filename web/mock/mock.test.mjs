// The mock answers what the contract's examples say.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePort } from '../gateway.mjs';
import { mock } from './run.mjs';

const contract = JSON.parse(readFileSync(new URL('../../gen/api/openapi.json', import.meta.url), 'utf8'));
const order = '/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f';
const key = { Authorization: 'Bearer og_test_any' };
let served;

before(async () => {
  served = await mock(await freePort());
});
after(() => served.stop());

async function call(method, path, { headers = {}, body } = {}) {
  const sent = { ...key, ...(body && { 'Content-Type': 'application/json' }), ...headers };
  const response = await fetch(served.url + path, { method, headers: sent, body: body && JSON.stringify(body) });
  return { status: response.status, type: response.headers.get('Content-Type'), body: await response.json() };
}

const example = (path, method, status) => contract.paths[path][method].responses[status].content['application/json'].example;

test('an order, a list, and a change are their examples', async () => {
  assert.deepEqual(await call('GET', order), { status: 200, type: 'application/json', body: example('/v1/orders/{order_id}', 'get', 200) });
  assert.deepEqual((await call('GET', '/v1/products?limit=5')).body, example('/v1/products', 'get', 200));
  const { example: body } = contract.paths['/v1/orders'].post.requestBody.content['application/json'];
  const placed = await call('POST', '/v1/orders', { headers: { 'Idempotency-Key': '12345678' }, body });
  assert.deepEqual([placed.status, placed.body], [201, example('/v1/orders', 'post', 201)]);
  const cancelled = await call('POST', `${order}/cancel`, { headers: { 'Idempotency-Key': '12345678' } });
  assert.deepEqual([cancelled.status, cancelled.body.status], [200, 'cancelled']);
});

test('every code can be asked for', async () => {
  for (const [code, status] of [['ORD_002', 409], ['ORD_007', 409], ['IDEM_002', 422], ['SYS_006', 503]]) {
    const refused = await call('POST', `${order}/cancel`, { headers: { 'Idempotency-Key': '12345678', Prefer: `code=${status}, example=${code}` } });
    assert.deepEqual([refused.status, refused.type, refused.body.code], [status, 'application/problem+json', code]);
  }
});

test('a request that the contract refuses is refused', async () => {
  assert.equal((await call('GET', order, { headers: { Authorization: '' } })).status, 401);
  const wrong = await call('POST', '/v1/orders', { headers: { 'Idempotency-Key': '12345678' }, body: { currency: 'EUR' } });
  assert.deepEqual([wrong.status, wrong.type], [422, 'application/problem+json']);
});

test('a port that is taken or none is one sentence', () => {
  for (const [port, sentence] of [[new URL(served.url).port, /^port [0-9]+ is taken: PORT=... chooses another$/], ['abc', /^PORT=abc is no port$/], ['70000', /^PORT=70000 is no port$/]]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(import.meta.dirname, 'run.mjs')], { env: { ...process.env, PORT: port }, encoding: 'utf8' });
    assert.equal(status, 2, stderr);
    assert.match((stdout + stderr).trim(), sentence);
  }
});
