// A server that answers what a test tells it to, and remembers what it was asked.
import { createServer } from 'node:http';
import { createOrdergate } from '@ordergate/client';

/**
 * The answers are given one after the other, the last one for ever: {status, headers, body}, a function of the request that
 * returns one, 'hang up', or with `cut` one that breaks off.
 */
export async function setup(t, answers, config = {}) {
  const requests = [];
  const server = createServer(async (req, res) => {
    let body = '';
    for await (const chunk of req) body += chunk;
    const request = { method: req.method, url: req.url, headers: req.headers, body: body && JSON.parse(body) };
    requests.push(request);
    let answer = answers[Math.min(requests.length, answers.length) - 1];
    if (typeof answer === 'function') answer = await answer(request);
    if (answer === 'hang up') return req.socket.destroy();
    const { status = 200, headers = {}, body: content, cut } = answer;
    res.writeHead(status, { 'Content-Type': 'application/json', 'X-Trace-ID': 'trace-1', ...headers });
    if (cut) return res.write('{"code":', () => req.socket.destroy());
    res.end(content === undefined ? undefined : typeof content === 'string' ? content : JSON.stringify(content));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const baseUrl = `http://127.0.0.1:${server.address().port}`;
  const og = createOrdergate({ baseUrl: `${baseUrl}/`, apiKey: 'og_test_key', ...config });
  return { og, requests, baseUrl };
}

export const order = (changes = {}) => ({
  id: 'ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f', status: 'confirmed', payment_status: 'paid', fulfillment_status: 'unfulfilled', version: 5,
  currency: 'EUR', customer_ref: 'c', lines: [], subtotal: { amount: 1, currency: 'EUR' }, discount: { amount: 0, currency: 'EUR' },
  total: { amount: 1, currency: 'EUR' }, coupon_code: null, shipping_address: null, rejection: null, reservation_expires_at: null,
  cancel_requested_at: null, metadata: {}, created_at: '2026-11-23T06:00:00Z', updated_at: '2026-11-23T06:00:00Z', ...changes,
});

export const problem = (status, code, retryable = false, extras = {}, headers = {}) => ({
  status,
  headers: { 'Content-Type': 'application/problem+json', ...headers },
  body: { type: `/docs/errors/${code}`, title: code, status, detail: 'no', instance: '/x', message: 'no', retryable, trace_id: 'trace-1', code, ...extras },
});
