// A server that does everything wrong, and what becomes of it. Each case states its outcome; all of them are printed as a table.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import { createOrdergate, isOrdergateError } from '@ordergate/client';
import { order, problem } from './server.mjs';
import { end, event } from './stream.mjs';

const BODY = { currency: 'EUR', customer_ref: 'c', lines: [{ sku: 'A', quantity: 1 }] };
const KEY = 'my-own-key';
const JSON_TYPE = 'Content-Type: application/json';
const NOW = 'Retry-After: 0';

/** An answer in bytes. */
const http = (status, headers, body = '') => `HTTP/1.1 ${status} X\r\nX-Trace-ID: trace-1\r\nConnection: close\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n${body}`;
const whole = (status, headers, body) => http(status, [...headers, `Content-Length: ${Buffer.byteLength(body)}`], body);
const json = (status, body, ...headers) => whole(status, [JSON_TYPE, ...headers], JSON.stringify(body));
const refusal = (status, code, retryable, ...headers) => json(status, problem(status, code, retryable).body, ...headers);
const good = json(201, order());
const page = (next_cursor) => json(200, { data: [order()], next_cursor });
const sse = (text) => http(200, ['Content-Type: text/event-stream'], `:\n\n${text}`);
const html = (status, ...headers) => whole(status, ['Content-Type: text/html', ...headers], '<h1>Hello</h1>');
const date = (ms) => `Retry-After: ${new Date(Date.now() + ms).toUTCString()}`;

const place = (og) => og.orders.place(BODY, { idempotencyKey: KEY });
const read = (og) => og.orders.get('ord_1');
const list = async (og) => {
  let n = 0;
  for await (const _ of og.orders.list()) assert.ok(++n < 50, 'the list has no end');
  return `${n} orders`;
};
const watch = async (og) => {
  const seen = [];
  for await (const { sequence } of og.orders.watch('ord_1')) seen.push(sequence);
  return `events ${seen.join(' ')}`;
};
const change = (og) => og.orders.update('ord_1', {}, { ifMatch: '"1-a"' });

// [case, call, answers, outcome, tries]. An answer is bytes after which the connection ends; `reset` cuts it hard, `stall` leaves it open; the last answer is given for ever.
const reset = (bytes = '') => ({ bytes, how: 'reset' });
const stall = (bytes = '') => ({ bytes, how: 'stall' });
const CASES = [
  ['nobody listens', place, 'refused', 'NETWORK 0', 0],
  ['reset before an answer', place, [reset(), good], 'confirmed', 2],
  ['reset, always', place, [reset()], 'NETWORK 0', 4],
  ['closed before an answer', place, [''], 'NETWORK 0', 4],
  ['reset after the headers', place, [reset(http(201, [JSON_TYPE, NOW])), good], 'confirmed', 2],
  ['a body that is cut', place, [reset(http(201, [JSON_TYPE, NOW, 'Content-Length: 900'], '{"id":"ord_')), good], 'confirmed', 2],
  ['a body that ends early', place, [http(201, [JSON_TYPE, NOW, 'Content-Length: 900'], '{"id":"ord_'), good], 'confirmed', 2],
  ['half a document', place, [whole(201, [JSON_TYPE, NOW], '{"id":"ord_'), good], 'confirmed', 2],
  ['half a document, always', place, [whole(201, [JSON_TYPE, NOW], '{"id":"ord_')], 'NETWORK 0', 4],
  ['a refusal that is cut', place, [reset(http(422, [NOW, 'Content-Length: 900'], '{"code":')), good], 'confirmed', 2],
  ['half a refusal', place, [whole(422, ['Content-Type: application/problem+json'], '{"code":')], 'UNKNOWN 422', 1],
  ['rubbish as gzip', place, [whole(201, [JSON_TYPE, 'Content-Encoding: gzip', NOW], 'no gzip'), good], 'confirmed', 2],
  ['a changed order, and no answer', change, [reset()], 'NETWORK 0', 1],
  ['a changed order, and half a document', change, [whole(200, [JSON_TYPE], '{"id":')], 'NETWORK 0', 1],
  ['silence', place, [stall()], 'NETWORK 0, TimeoutError', 2, { timeoutMs: 500, maxRetries: 1 }],
  ['silence after the headers', place, [stall(http(201, [JSON_TYPE, NOW, 'Content-Length: 900'], '{"id"'))], 'NETWORK 0, TimeoutError', 2, { timeoutMs: 500, maxRetries: 1 }],
  ['a fetch that hears no signal', place, 'deaf', 'NETWORK 0, TimeoutError', 0, { timeoutMs: 100, maxRetries: 0 }],
  ['201 without a body', place, [whole(201, [JSON_TYPE], '')], 'UNKNOWN 201', 1],
  ['201 whose body is lost, always', place, [http(201, [JSON_TYPE, NOW, 'Transfer-Encoding: chunked'], '0\r\n\r\n')], 'NETWORK 0', 4],
  ['204 for a new order', place, [http(204, [])], 'UNKNOWN 204', 1],
  ['204 for an order', read, [http(204, [])], 'UNKNOWN 204', 1],
  ['201 with {}', place, [json(201, {})], 'UNKNOWN 201', 1],
  ['201 with null', place, [json(201, null)], 'UNKNOWN 201', 1],
  ['201 with a list', place, [json(201, { data: [], next_cursor: null })], 'UNKNOWN 201', 1],
  ['201 with an array', place, [json(201, [order()])], 'UNKNOWN 201', 1],
  ['200 with a page (wrong baseUrl)', read, [html(200)], 'UNKNOWN 200', 1],
  ['a list that is a page', list, [html(200)], 'UNKNOWN 200', 1],
  ['a stream that is a page', watch, [html(200)], 'UNKNOWN 200', 1],
  ['404 with a page', read, [html(404)], 'UNKNOWN 404', 1],
  ['403 of a firewall', place, [html(403)], 'UNKNOWN 403', 1],
  ['502 of a proxy, then none', place, [html(502, NOW), good], 'confirmed', 2],
  ['503 of a proxy, always', place, [html(503, NOW)], 'UNKNOWN 503', 4],
  ['500 of a proxy', place, [html(500, NOW)], 'UNKNOWN 500', 1],
  ['429 of a proxy', place, [html(429, NOW), good], 'confirmed', 2],
  ['the order as text/plain', place, [whole(201, ['Content-Type: text/plain'], JSON.stringify(order()))], 'confirmed', 1],
  ['the order without a media type', place, [whole(201, [], JSON.stringify(order()))], 'confirmed', 1],
  ['301 to another host', place, [whole(301, ['Location: https://www.example.com/'], '')], 'UNKNOWN 301', 1],
  ['307 to itself', read, [whole(307, ['Location: /v1/orders/ord_1'], '')], 'UNKNOWN 307', 1],
  ['a code without a message', place, [json(422, { code: 'CAT_005' })], 'UNKNOWN 422', 1],
  ['a code that is no text', place, [json(422, { code: { a: 1 }, message: 'x' })], 'UNKNOWN 422', 1],
  ['a code of JavaScript', place, [json(422, { code: 'constructor_001', message: 'x' })], 'UNKNOWN 422', 1],
  ['a code that is newer', place, [refusal(422, 'NEW_001', false)], 'UNKNOWN 422', 1],
  ['Retry-After: a date in a second', place, [() => refusal(503, 'SYS_002', true, date(1_900)), good], 'confirmed, after 0.9 s', 2],
  ['Retry-After: a date that is over', place, [refusal(503, 'SYS_002', true, date(-60_000)), good], 'confirmed', 2],
  ['Retry-After: a date in an hour', place, [refusal(503, 'SYS_002', true, date(3_600_000))], 'SYS_002 503', 1],
  ['Retry-After: a date, of a clock that is wrong', place, [refusal(503, 'SYS_002', true, 'Date: Thu, 01 Jan 2026 00:00:00 GMT', 'Retry-After: Thu, 01 Jan 2026 00:00:00 GMT'), good], 'confirmed', 2],
  ['Retry-After: an hour', place, [refusal(429, 'RATE_001', true, 'Retry-After: 3600')], 'RATE_001 429', 1],
  ['Retry-After: rubbish', place, [refusal(503, 'SYS_002', true, 'Retry-After: soon'), good], 'confirmed', 2],
  ['a page without next_cursor', list, [json(200, { data: [order()] })], '1 orders', 1],
  ['an empty next_cursor', list, [page('')], '1 orders', 1],
  ['a cursor that comes again', list, [page('a')], 'UNKNOWN 0', 2],
  ['cursors in a ring', list, [page('a'), page('b'), page('a')], 'UNKNOWN 0', 3],
  ['a list without data', list, [json(200, { data: null, next_cursor: null })], 'UNKNOWN 200', 1],
  ['half an event, then reset', watch, [reset(sse(event(1) + event(2).slice(0, 30))), sse(event(2) + end('terminal'))], 'events 1 2', 2],
  ['half an event, then the end', watch, [sse(event(1) + event(2).slice(0, -1)), sse(event(2) + end('terminal'))], 'events 1 2', 2],
  ['an event that is no JSON', watch, [sse(event(1) + 'id: 2\nevent: order.paid\ndata: {oops\n\n'), sse(event(2) + end('terminal'))], 'events 1 2', 2],
  ['an event that is no JSON, always', watch, [sse(event(1) + 'id: 2\nevent: order.paid\ndata: {oops\n\n')], 'UNKNOWN 0', 17, { speed: 20 }],
  ['an event whose id is no number, always', watch, [sse('id: abc\nevent: order.paid\ndata: {}\n\n')], 'UNKNOWN 0', 17, { speed: 20 }],
  ['an event without an end, always', watch, [sse(`data: ${'x'.repeat(2 ** 20)}`)], 'UNKNOWN 0', 17, { speed: 20 }],
  ['an event with U+2028', watch, [sse('id: 1\ndata: {"a":"\u2028"}\n\n' + end('terminal'))], 'events ', 1],
  ['an event that is a number', watch, [sse('id: 1\nevent: order.paid\ndata: 5\n\n'), sse(event(1) + end('terminal'))], 'events 1', 2],
  ['an event that is null', watch, [sse('id: 1\nevent: order.paid\ndata: null\n\n'), sse(event(1) + end('terminal'))], 'events 1', 2],
  ['events that come again', watch, [sse(event(1) + event(2) + end('reconnect')), sse(event(1) + event(2) + event(3) + end('terminal'))], 'events 1 2 3', 2],
  ['lines that end with CR LF', watch, [sse((event(1) + end('terminal')).replaceAll('\n', '\r\n'))], 'events 1', 1],
  ['events in single bytes', watch, [{ bytes: sse(event(1) + end('terminal')), how: 'drip' }], 'events 1', 1],
  ['a stream that is over', watch, [http(204, [])], 'events ', 1],
  ['a stream that is refused', watch, [refusal(404, 'ORD_001', false)], 'ORD_001 404', 1],
];

const table = [];
after(() => {
  const width = (i) => Math.max(...table.map((row) => row[i].length));
  console.log(table.map((row) => row.map((cell, i) => cell.padEnd(width(i))).join('  ').trimEnd()).join('\n'));
});

for (const [name, call, answers, outcome, tries, { speed, ...config } = {}] of CASES) {
  test(`${name}: ${outcome}`, { timeout: 10_000 }, async (t) => {
    // The client's clock, not that of fetch, runs so many times as fast.
    const { setTimeout: real } = globalThis;
    if (speed) t.mock.method(globalThis, 'setTimeout', (work, ms, ...more) => real(work, ms / speed, ...more));
    const keys = [];
    const server = createServer((socket) => {
      socket.on('error', () => {});
      let text = '';
      socket.on('data', async (chunk) => {
        const had = /\r\n\r\n/.test(text);
        text += chunk;
        if (had || !/\r\n\r\n/.test(text)) return;
        keys.push(/^idempotency-key: (.*)\r$/im.exec(text)?.[1]);
        let answer = answers[Math.min(keys.length, answers.length) - 1];
        if (typeof answer === 'function') answer = answer();
        const { bytes = answer, how = 'end' } = Object(answer) === answer ? answer : {};
        if (how === 'drip') for (const byte of bytes) socket.write(byte), await new Promise(setImmediate);
        else socket.write(bytes);
        if (how === 'stall') return;
        if (how === 'reset') setTimeout(() => socket.resetAndDestroy(), 20);
        else socket.end();
      });
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address();
    if (answers === 'refused') await new Promise((resolve) => server.close(resolve));
    const fetch = answers === 'deaf' ? () => new Promise(() => {}) : undefined;
    const begun = performance.now();
    try {
      const value = await call(createOrdergate({ baseUrl: `http://127.0.0.1:${port}`, apiKey: 'k', fetch, ...config })).catch((error) => error);
      const seconds = (performance.now() - begun) / 1000;
      if (value instanceof Error) assert.ok(isOrdergateError(value), value.stack);
      const got = value instanceof Error ? `${value.code} ${value.status}` : value.status ?? value;
      const [expected, more] = outcome.split(', ');
      table.push([name, outcome, `${keys.length} ${keys.length === 1 ? 'try' : 'tries'}`]);
      assert.deepEqual([got, keys.length], [expected, tries]);
      if (more === 'TimeoutError') assert.equal(value.cause.name, more);
      if (more?.startsWith('after')) assert.ok(seconds >= 0.9, `${seconds}`);
      if (call !== place) return;
      assert.ok(keys.every((key) => key === KEY), 'every try has the key');
      if (value instanceof Error) assert.equal(value.idempotencyKey, KEY, 'and so has the error');
    } finally {
      server.close();
    }
  });
}
