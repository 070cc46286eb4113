// The client in Chromium, in a page of another origin than the gateway's: CORS, streams, aborts, and what a page is told where CORS refuses.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import * as esbuild from 'esbuild';
import { chromium } from 'playwright-core';
import { startBrowser } from '../../../chromium.mjs';

const { ORDERGATE_URL: baseUrl, ORDERGATE_KEY: apiKey } = process.env;
assert.ok(baseUrl && apiKey, 'ORDERGATE_URL and ORDERGATE_KEY must be set');
let browser, server, origin;

before(async () => {
  const { outputFiles: [client] } = await esbuild.build({ stdin: { contents: "export * from '@ordergate/client';", resolveDir: import.meta.dirname }, bundle: true, format: 'esm', target: 'es2022', write: false });
  server = createServer((req, res) => {
    const script = req.url === '/client.js';
    res.writeHead(200, { 'Content-Type': script ? 'text/javascript' : 'text/html' });
    res.end(script ? client.text : `<!doctype html><title>A page</title><script type="module">window.client = await import('/client.js');</script>`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://localhost:${server.address().port}`;
  browser = await startBrowser(chromium);
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** Runs the function in a page of the origin; it is given the module and a client. */
async function inPage(at, work) {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  try {
    await page.goto(at);
    await page.waitForFunction(() => window.client);
    return await page.evaluate(`(${work})(window.client, window.client.createOrdergate(${JSON.stringify({ baseUrl, apiKey })}))`);
  } finally {
    assert.deepEqual(complaints, []);
    await page.close();
  }
}

test('a page places, reads, watches, lists and cancels', async () => {
  const saw = await inPage(origin, async (_, og) => {
    const body = { currency: 'EUR', customer_ref: `browser-${crypto.randomUUID()}`, lines: [{ sku: 'LAMP-0001', quantity: 1 }] };
    const order = await og.orders.place({ ...body, payment: { method_token: 'pm_ok' } }, { waitSeconds: 10 });
    const events = [];
    for await (const { type } of og.orders.watch(order.id)) {
      events.push(type);
      if (type === 'order.confirmed') break;
    }
    const read = await og.orders.get(order.id);
    const { servedBy, age, etag, traceId, consistencyToken } = og.meta(read);
    const same = await og.orders.get(order.id, { ifNoneMatch: etag });
    const listed = [];
    for await (const { id } of og.orders.list({ customer_ref: body.customer_ref, limit: 1 })) listed.push(id === order.id);
    const cancelled = await og.orders.cancel(order.id, {}, { waitSeconds: 10 });
    return { status: order.status, events, servedBy, age, headers: [etag, traceId, consistencyToken].every(Boolean), same, listed, cancelled: cancelled.status };
  });
  assert.deepEqual([saw.status, saw.events[0], saw.events.at(-1), saw.same, saw.listed, saw.cancelled], ['confirmed', 'order.created', 'order.confirmed', null, [true], 'cancelled']);
  assert.ok(['lru', 'redis', 'replica', 'primary'].includes(saw.servedBy) && saw.age >= 0 && saw.headers, JSON.stringify(saw));
});

test('a page is refused with a typed error, and its abort tells the key', async () => {
  const saw = await inPage(origin, async ({ isOrdergateError }, og) => {
    const missing = await og.orders.get('ord_00000000000000000000000000000000').catch((e) => isOrdergateError(e, 'getOrder') && e.code);
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error('the page was left')), 200);
    const body = { currency: 'EUR', customer_ref: 'browser', lines: [{ sku: 'LAMP-0001', quantity: 1 }], payment: { method_token: 'pm_timeout' } };
    const left = await og.orders.place(body, { waitSeconds: 10, signal: stop.signal }).catch((e) => [e.code, e.idempotencyKey?.length, e.cause.message]);
    return [missing, left];
  });
  assert.deepEqual(saw, ['ORD_001', ['ABORTED', 36, 'the page was left']]);
});

test('a page of an origin that is not allowed is told that it may be CORS', async () => {
  const page = await browser.newPage();
  try {
    await page.route('http://shop.example/**', (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>Elsewhere</title>' }));
    await page.route('http://shop.example/client.js', async (route) => route.fulfill({ contentType: 'text/javascript', body: await (await fetch(`${origin}/client.js`)).text() }));
    await page.goto('http://shop.example/');
    const message = await page.evaluate(`import('/client.js').then(({ createOrdergate }) =>
      createOrdergate({ baseUrl: ${JSON.stringify(baseUrl)}, apiKey: 'og_test_x', maxRetries: 0 }).orders.get('ord_1').catch((error) => error.message))`);
    assert.match(message, /^NETWORK No answer from .*: Failed to fetch\. Is http:\/\/shop\.example in ORDERGATE_ORIGINS \(CORS\)\? It refuses headers of your own, too$/);
  } finally {
    await page.close();
  }
});
