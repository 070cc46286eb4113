// Streams that are lost, under a clock of the tests'. The file has no real server: fetch's own timers would be of that clock, too.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { createOrdergate, isOrdergateError } from '@ordergate/client';
import { problem } from './server.mjs';
import { end, event, stream, thrown } from './stream.mjs';

/** A client under a clock of its own, whose server is away between the two moments (ms after the start), `answers` gives what it says otherwise. */
function outage(t, [from, to], answers, config = {}) {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'], now: 1_000_000 });
  const now = () => Date.now() - 1_000_000;
  const tries = [];
  const fetch = async (_, init) => {
    tries.push({ at: now(), after: init.headers.get('Last-Event-ID') });
    if (now() >= from && now() < to) throw new TypeError('fetch failed', { cause: new Error('connect ECONNREFUSED') });
    const { status = 200, headers, body } = answers.shift();
    return new Response(typeof body === 'object' ? JSON.stringify(body) : body, { status, headers });
  };
  /** Lets the time pass until the promise is settled. */
  const passes = async (promise) => {
    let open = true;
    const settled = promise.finally(() => { open = false; });
    settled.catch(() => {});
    for (; open; t.mock.timers.tick(50)) for (let i = 0; i < 20 && open; i++) await turn();
    return settled;
  };
  return { og: createOrdergate({ baseUrl: 'http://h', apiKey: 'k', fetch, ...config }), tries, now, passes };
}

test('an order is followed through an outage of 50 s', async (t) => {
  const away = problem(503, 'SYS_002', true);
  const { og, tries, passes } = outage(t, [1, 50_000], [stream(event(1)), away, away, stream(event(2), end('terminal'))], { maxRetries: 0 });
  const seen = [];
  await passes((async () => { for await (const { sequence } of og.orders.watch('ord_1')) seen.push(sequence); })());
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(new Set(tries.slice(1).map(({ after }) => after)), new Set(['1']));
  const pauses = tries.slice(2).map(({ at }, i) => at - tries[i + 1].at);
  assert.ok(Math.max(...pauses) <= 5_100 && Math.max(...pauses) > 2_400 && tries.length < 40, pauses.join());
});

test('an outage of more than a minute is thrown', async (t) => {
  const { og, now, passes } = outage(t, [1, Infinity], [stream(event(1))]);
  const events = og.orders.watch('ord_1');
  assert.equal((await events.next()).value.sequence, 1);
  const error = await passes(thrown(events.next()));
  assert.ok(isOrdergateError(error, 'streamOrder') && error.is('NETWORK'));
  assert.ok(now() >= 60_000 && now() < 67_000, `${now()}`);
});

test('an abort ends the tries to open a lost stream', async (t) => {
  const { og, now, passes } = outage(t, [1, Infinity], [stream(event(1))]);
  const stop = new AbortController();
  const events = og.orders.watch('ord_1', { signal: stop.signal });
  assert.equal((await events.next()).value.sequence, 1);
  setTimeout(() => stop.abort(new Error('enough')), 20_000);
  assert.equal((await passes(thrown(events.next()))).cause.message, 'enough');
  assert.ok(now() < 21_000, `${now()}`);
});

test('a first stream that cannot be opened is thrown after the retries of any request', async (t) => {
  const { og, tries, passes } = outage(t, [0, Infinity], []);
  assert.equal((await passes(thrown(og.orders.watch('ord_1').next()))).code, 'NETWORK');
  assert.equal(tries.length, 4);
});
