// Server-sent events by the HTML standard, and what of a stream is not waited for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOrdergate } from '@ordergate/client';
import { messages } from '../../../gen/ts/dist/esm/stream.js';
import { end, event } from './stream.mjs';

const bytes = (text) => new TextEncoder().encode(text);
const bodyOf = (chunks) => new ReadableStream({ start: (c) => (chunks.forEach((chunk) => c.enqueue(chunk)), c.close()) });
async function read(...chunks) {
  const found = [];
  for await (const message of messages(bodyOf(chunks.map((chunk) => (typeof chunk === 'string' ? bytes(chunk) : chunk))))) found.push(message);
  return found;
}
const A = { id: '1', event: 'a', data: '{}\n' };

for (const [name, chunks, expected] of [
  ['a repeated id: the last one counts', ['id: 4\nid: 1\nevent: b\nevent: a\ndata: {}\n\n'], [A]],
  ['several lines of data are joined by LF', ['data: {"a":\ndata:  1,\ndata\ndata:"b":2}\n\n'], [{ data: '{"a":\n 1,\n\n"b":2}\n' }]],
  ['a lone CR ends a line', ['id: 1\revent: a\rdata: {}\r\r'], [A]],
  ['CR LF ends one line', ['id: 1\r\nevent: a\r\ndata: {}\r\n\r\n'], [A]],
  ['CR LF in two chunks ends one line', ['id: 1\r', '\nevent: a\r', '\ndata: {}\r', '\n\r', '\n'], [A]],
  ['LF, CR and CR LF mixed', ['id: 1\nevent: a\rdata: {}\r\n\n'], [A]],
  ['a byte order mark is left out', ['\ufeffid: 1\nevent: a\ndata: {}\n\n'], [A]],
  ['a comment is a message without data', [':\n\n', ': x\nid\n\n'], [{}, { id: '' }]],
  ['a message that is cut off is left out', ['id: 1\nevent: a\ndata: {}\n\nid: 2\ndata: {}\n'], [A]],
  ['fields that are unknown are left out', ['retry: 5\ndatabase: x\n id: 7\nid: 1\nevent: a\ndata: {}\n\n'], [A]],
  ['U+2028 and U+2029 are characters', ['data: "\u2028\u2029"\n\n'], [{ data: '"\u2028\u2029"\n' }]],
  ['a character in two chunks', [bytes('data: "€"\n\n').slice(0, 8), bytes('data: "€"\n\n').slice(8)], [{ data: '"€"\n' }]],
]) test(name, async () => assert.deepEqual(await read(...chunks), expected));

test('a message is given before the stream goes on, whatever ends its lines', async () => {
  for (const lf of ['\n', '\r', '\r\n']) {
    const body = new ReadableStream({ start: (c) => c.enqueue(bytes(`data: {}${lf}${lf}`)) });
    assert.deepEqual((await messages(body).next()).value, { data: '{}\n' });
  }
});

test('a message above 1 MiB is the last, without its data; smaller ones are read, however many', async () => {
  const line = `data: ${'x'.repeat(1017)}\n`; // 1,024 bytes with its LF
  assert.equal((await read(...Array(1_000).fill(line), '\n'))[0].data.length, 1_018_000);
  assert.deepEqual(await read(...Array(1_100).fill(line), '\n', 'data: {}\n\n'), [{ data: '' }]);
  assert.deepEqual(await read('data: ', ...Array(1_100).fill('x'.repeat(1_024))), [{ data: '' }]);
  assert.equal((await read(...Array(1_100).fill(`${line}\n`))).length, 1_100);
});

test('each byte is looked at once', async (t) => {
  let looked = 0;
  const { split } = String.prototype;
  t.mock.method(String.prototype, 'split', function (...args) { looked += this.length; return split.apply(this, args); });
  const chunks = Array(5_000).fill('x'.repeat(100));
  await read('data: ', ...chunks, '\n\n');
  assert.ok(looked < 510_000, `${looked} characters of 500,008`);
});

/** The events that a client sees of the streams, and the Last-Event-IDs that it sends. */
async function watch(...streams) {
  const asked = [];
  const fetch = async (_, { headers }) => (asked.push(headers.get('Last-Event-ID')), new Response(bodyOf([bytes(streams.shift())]), { headers: { 'Content-Type': 'text/event-stream' } }));
  const seen = [];
  for await (const { type } of createOrdergate({ baseUrl: 'http://h', apiKey: 'k', fetch }).orders.watch('ord_1')) seen.push(type);
  return [seen, asked];
}

test('an id that is no number is never sent back', async () => {
  assert.deepEqual(await watch(event(1) + event(2).replace('id: 2', 'id: abc'), event(2) + end('terminal')), [['order.updated', 'order.updated'], [null, '1']]);
});

test('a message without an event is one of the order', async () => {
  assert.deepEqual(await watch(event(1).replace(/event: .*\n/, '') + end('terminal')), [['order.updated'], [null]]);
});

test('a stream that the server ends is opened again after a pause, or at once if it gave an event', async () => {
  const begun = performance.now();
  await watch(end('reconnect'), end('reconnect'), end('terminal'));
  assert.ok(performance.now() - begun >= 370, 'two pauses'); // at least 125 ms and 250 ms
  const again = performance.now();
  await watch(...Array.from({ length: 20 }, (_, i) => event(i + 1) + end('reconnect')), end('terminal'));
  assert.ok(performance.now() - again < 2_000, 'no pause'); // twenty are at least 2.5 s
});
