// Works the console in Chromium against the real binary.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { after, before, suite, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { licensesOf } from '../licenses.js';
import { startBrowser, startGateway } from './gateway.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let gateway, browser;

before(async () => {
  browser = await startBrowser();
  gateway = await startGateway();
});
after(async () => {
  await browser?.close();
  await gateway?.stop();
});

/**
 * A console in a context of its own. The end of its test finds the things that a page must never do: an error in its console, a
 * violation of its policy, a request to elsewhere. `refused`: the test provokes statuses from 400 on, which Chromium puts into the console as well.
 */
async function open(t, { refused = false, address = '/console', ready = '.catalogue [data-sku]', ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(60_000); // for a machine that is full of other work
  const faults = [];
  context.on('console', (message) => {
    const [load, answer] = /^Failed to load resource(?:.* status of (\d+))?/.exec(message.text()) ?? [];
    // A machine that is full of other work answers 503 or 504 at times, and the client repeats it.
    if (['error', 'warning'].includes(message.type()) && !(load && (refused || answer === '503' || answer === '504'))) faults.push(message.text());
  });
  context.on('weberror', (error) => faults.push(String(error.error())));
  context.on('request', (request) => {
    if (!request.url().startsWith(gateway.url)) faults.push(`a request to ${request.url()}`);
  });
  t.after(async () => {
    for (const page of context.pages()) await page.unrouteAll({ behavior: 'ignoreErrors' }); // a handler may be under way
    await context.close();
    assert.deepEqual(faults, []);
  });
  const page = await context.newPage();
  await page.goto(gateway.url + address);
  if (ready) await page.waitForSelector(ready);
  return page;
}

const status = (page, ...of) => page.waitForSelector(of.map((s) => `.head[data-status=${s}]`).join());
const place = async (page, outcome, ...ends) => {
  await page.click(`[data-outcome=${outcome}]`);
  if (ends.length) await status(page, ...ends);
};
const act = (page, action) => page.click(`[data-action=${action}] button[aria-disabled=false]`);
const steps = (page) => page.$$eval('[data-step]', (all) => Object.fromEntries(all.filter((e) => e.dataset.status !== 'none').map((e) => [e.dataset.step, e.dataset.status])));
/**
 * Reads until what is read passes, for half a minute: a request or an effect may be under way. Only what must hold at every moment is
 * read once.
 */
async function eventually(read, passes) {
  for (const end = Date.now() + 30_000; ; await new Promise((resolve) => setTimeout(resolve, 50))) {
    try {
      return passes(await read());
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}
const becomes = (read, expected, message) => eventually(read, (now) => assert.deepEqual(now, expected, message));
const shows = (page, selector, pattern) => eventually(() => page.textContent(selector), (text) => assert.match(text, pattern));
const count = (page, selector) => () => page.$$eval(selector, (all) => all.length);
const focused = (page, selector) => becomes(() => page.evaluate((s) => document.activeElement.matches(s), selector), true, `the focus is on ${selector}`);
/** Presses a button that copies, and returns what it copied. */
const copy = async (page, selector) => {
  await page.click(selector);
  await page.waitForSelector(`${selector}[data-state=copied]`);
  return page.evaluate(() => navigator.clipboard.readText());
};
const idOf = (page) => new URL(page.url()).hash.slice(1);
const api = (method, path, body) => fetch(gateway.url + path, {
  method, headers: { Authorization: `Bearer ${gateway.key}`, 'Content-Type': 'application/json', 'Idempotency-Key': crypto.randomUUID() }, body: body && JSON.stringify(body),
});
const only = async (page, q) => {
  await page.fill('.search', q);
  await page.waitForFunction((text) => [...document.querySelectorAll('.catalogue [data-sku]')].every((row) => row.dataset.sku.startsWith(text)), q.toUpperCase());
  await page.click('.basket [aria-label$=" less"]');
  await page.click('.catalogue [data-sku] button');
};

/** A problem as the gateway would write it. */
const refusal = (status, code) => ({
  status, contentType: 'application/problem+json', headers: { 'Retry-After': '0' },
  body: JSON.stringify({ type: `/docs/errors/${code}`, title: 'x', status, detail: 'It is away.', instance: '/', message: 'A part is away', retryable: status === 503, trace_id: 'trace-1', code }),
});

const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
/** Fails if axe finds anything, and of the dark theme if its contrast is too low. */
async function accessible(page) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
    const { violations } = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), colorScheme === 'light' ? rules : ['color-contrast']);
    assert.deepEqual(violations.map((v) => [v.id, v.nodes.slice(0, 3).map((n) => `${n.html} ${n.failureSummary}`)]), [], colorScheme);
  }
}

suite('console', { concurrency: 3 }, () => {
  test('an order ends as its button says', { concurrency: 4 }, async (t) => {
    const forward = { reserve_stock: 'done', authorize: 'done', confirm_stock: 'done', capture: 'done' };
    const back = { reserve_stock: 'done', authorize: 'failed', confirm_stock: 'skipped', capture: 'skipped', cancel_reservation: 'done' };
    const ends = {
      approve: ['confirmed', null, forward], decline: ['rejected', 'PAY_007', back], timeout: ['rejected', 'PAY_003', back], 'timeout-charged': ['confirmed', null, forward],
      error: ['rejected', 'PAY_006', back], slow: ['confirmed', null, forward], later: ['reserved', null, { reserve_stock: 'done' }],
      'out-of-stock': ['rejected', 'INV_002', { reserve_stock: 'failed', authorize: 'skipped', confirm_stock: 'skipped', capture: 'skipped' }],
    };
    await Promise.all(Object.entries(ends).map(([outcome, [end, code, saga]]) => t.test(outcome, async (t) => {
      const page = await open(t);
      if (outcome === 'out-of-stock') await only(page, 'kettle');
      await page.click(`[data-outcome=${outcome}]`);
      const underWay = { slow: 'running · [\\d.]+ m?s', timeout: 'in doubt · ', error: 'in doubt · .* tries' }[outcome];
      await page.waitForFunction((text) => new RegExp(text).test(document.querySelector('.step[data-step=authorize] .detail').textContent), underWay ?? '');
      await status(page, end);
      await page.waitForFunction((last) => document.querySelector(`[data-step=${last}]:not([data-status=pending], [data-status=running])`), Object.keys(saga).at(-1));
      await becomes(() => steps(page), saga);
      if (outcome === 'slow') {
        const seconds = async (selector) => Number(/([\d.]+) s$/.exec(await page.textContent(selector))[1]);
        const late = (await seconds('.step[data-step=authorize] .detail')) - (await seconds('[data-outcome=slow] .says'));
        assert.ok(late >= 0 && late < 2, `${late} s later than the tile says`);
      }
      await becomes(() => page.$eval('.notice', (e) => e.querySelector('.refusal a')?.textContent ?? null), code);
      await becomes(count(page, '.undo'), saga.cancel_reservation ? 1 : 0);
      if (code) {
        const explained = await fetch(gateway.url + (await page.getAttribute('.notice .refusal a', 'href')));
        assert.ok(explained.ok && (await explained.text()).includes(code), `the page of ${code}`);
      }
    })));
  });

  test('the stock goes down before the eyes, and comes back', async (t) => {
    const page = await open(t);
    await only(page, 'lamp');
    const stock = () => page.$eval('[data-sku=LAMP-0001] .stock', (e) => Number(e.textContent));
    let before;
    await eventually(stock, (n) => assert.ok((before = n) > 0, `${n} pieces`));
    await place(page, 'approve', 'confirmed');
    await becomes(stock, before - 1);
    await act(page, 'cancel');
    await status(page, 'cancelled');
    await becomes(stock, before);
    await becomes(() => steps(page), { reserve_stock: 'done', cancel_reservation: 'done', authorize: 'done', confirm_stock: 'done', capture: 'done', refund: 'done' });
  });

  test('an order is shipped, delivered and refunded in part', async (t) => {
    const page = await open(t);
    await place(page, 'approve', 'confirmed');
    await act(page, 'ship');
    await page.waitForSelector('.facts:has-text("· shipped")');
    await act(page, 'deliver');
    await status(page, 'completed');
    for (const amount of ['10.999', '1,500', '1.500', '1,0,0', '1.000,5', 'abc', '-1', '0', '', '100']) {
      await page.fill('.amount', amount);
      await page.waitForSelector('[data-action=refund]:has-text("An amount up to 99.99 EUR") button[aria-disabled=true]');
    }
    await page.fill('.amount', '10,00');
    await page.waitForSelector('.notice:has-text("A refund is still possible.")');
    await act(page, 'refund');
    await page.waitForSelector('.facts:has-text("refunded in part")');
    await page.waitForSelector('.timeline code:has-text("order.refunded")');
    await page.waitForSelector('.with .why:has-text("of €89.99")');
    await page.waitForSelector('.notice:has-text("€10.00 went back; the rest can still be refunded.")');
    await act(page, 'refund');
    await page.waitForSelector('[data-action=refund] .why a:has-text("RFD_001")');
    await page.waitForSelector('.notice:has-text("Everything has arrived. All of its money went back.")');
  });

  test('an amount of thousandths is taken with a point alone; a refusal of a refund names what is left', async (t) => {
    const page = await open(t, { refused: true });
    await page.selectOption('[aria-label=Currency]', 'KWD');
    await place(page, 'approve', 'confirmed');
    await page.fill('.amount', '1,500');
    await page.waitForSelector('[data-action=refund]:has-text("An amount up to") button[aria-disabled=true]');
    await page.fill('.amount', '1.500');
    await page.waitForSelector('[data-action=refund]:has-text("of KWD") button[aria-disabled=false]');
    const [payment] = (await (await api('GET', `/v1/orders/${idOf(page)}/payments`)).json()).data;
    const left = payment.amount.amount - 1000;
    await page.route('**/v1/payments/*/refunds', async (route) => {
      await api('POST', `/v1/payments/${payment.id}/refunds`, { reason: 'a test', amount: { amount: left, currency: 'KWD' } });
      await route.continue();
    });
    await act(page, 'refund');
    await page.waitForSelector('.notice .refusal:has-text("RFD_001"):has-text("At most 1.000 KWD can be refunded.")');
  });

  test('an amount has the decimal places of its currency, also where Intl writes none', async (t) => {
    const page = await open(t);
    await page.route('**/v1/orders/ord_*', async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, json: { ...(await answer.json()), currency: 'IQD', total: { amount: 1999, currency: 'IQD' } } });
    });
    await place(page, 'later', 'reserved');
    await shows(page, '.state strong', /^IQD\s1\.999$/);
  });

  test('a double click and a held key place one order', async (t) => {
    const page = await open(t);
    let placed = 0;
    page.on('request', (request) => { placed += request.method() === 'POST'; });
    await page.dblclick('[data-outcome=later]', { delay: 250 });
    await status(page, 'reserved');
    assert.equal(placed, 1);
    let answer, asked;
    const asks = new Promise((resolve) => { asked = resolve; }); // the page may show it before the request is here
    await page.route('**/v1/orders', async (route) => {
      await new Promise((resolve) => { answer = resolve; asked(); });
      await route.continue();
    });
    await page.focus('[data-outcome=later]');
    await page.keyboard.down('Enter');
    await page.waitForFunction(() => document.querySelectorAll('.tile[aria-disabled=true]').length === 8);
    await asks;
    answer();
    await page.waitForFunction(() => document.querySelectorAll('.tile[aria-disabled=false]').length === 8);
    await page.keyboard.down('Enter');
    await page.keyboard.up('Enter');
    await page.evaluate(() => new Promise(requestAnimationFrame));
    assert.equal(placed, 2);
  });

  test('the saga is read once at a time', async (t) => {
    const page = await open(t);
    let running = 0, most = 0;
    const isSaga = (request) => request.url().endsWith('/saga');
    page.on('request', (request) => { if (isSaga(request)) most = Math.max(most, ++running); });
    for (const end of ['requestfinished', 'requestfailed']) page.on(end, (request) => { if (isSaga(request)) running--; });
    await page.route('**/saga', async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 600));
      await route.continue().catch(() => {}); // it was aborted
    });
    await place(page, 'timeout-charged', 'confirmed');
    await page.waitForSelector('[data-step=capture][data-status=done]');
    assert.equal(most, 1);
  });

  test('an answer that is older than the saga that is shown is left out', async (t) => {
    const page = await open(t);
    await page.click('[data-outcome=slow]');
    await page.waitForSelector('.step[data-step=authorize][data-status=running]');
    let older = 0;
    await page.route('**/saga', async (route) => {
      const response = await route.fetch();
      const json = await response.json();
      const step = json.steps.find((s) => s.name === 'authorize');
      if (step.status !== 'running') return route.fulfill({ response });
      step.status = 'pending';
      const token = response.headers()['x-consistency-token'].replace(/\.[0-9a-f]{16}\./, `.${'0'.repeat(16)}.`);
      await route.fulfill({ response, json, headers: { ...response.headers(), 'x-consistency-token': token } });
      older++;
    });
    const seen = await page.evaluateHandle(() => {
      const all = [];
      new MutationObserver((records) => all.push(...records.map((r) => r.target.dataset.status))).observe(document.querySelector('.step[data-step=authorize]'), { attributeFilter: ['data-status'] });
      return all;
    });
    await status(page, 'confirmed');
    assert.ok(older > 0);
    await becomes(() => seen.jsonValue(), ['done']);
  });

  test('an order that waits is paid with another card after a decline', async (t) => {
    const page = await open(t);
    await place(page, 'later', 'reserved');
    await page.selectOption('[aria-label=Card]', 'pm_declined');
    await act(page, 'pay');
    await page.waitForSelector('.step[data-step=authorize][data-status=failed]');
    await shows(page, '.notice', /try another card/);
    await page.selectOption('[aria-label=Card]', 'pm_ok');
    await page.click('[data-action=pay] button[aria-disabled=false]:has-text("Pay again")');
    await status(page, 'confirmed');
    await shows(page, '.saga', /Authorize, card 1.*Authorize, card 2/s);
  });

  test('the button is called Pay while the first payment runs', async (t) => {
    const page = await open(t);
    await place(page, 'later', 'reserved');
    await page.route('**/v1/orders/*/payments', async (route) => {
      if (route.request().method() !== 'GET') return route.continue();
      const response = await route.fetch();
      const json = await response.json();
      await route.fulfill({ response, json: { ...json, data: json.data.map((payment) => ({ ...payment, status: 'pending' })) } });
    });
    await act(page, 'pay');
    await status(page, 'confirmed');
    await becomes(() => page.textContent('[data-action=pay] button'), 'Pay');
  });

  test('a disabled action names the code that the gateway answers', async (t) => {
    const page = await open(t);
    const seen = new Set();
    const compare = async (state) => {
      await page.waitForFunction(() => document.querySelectorAll('.act button[aria-busy=true]').length === 0);
      const shown = (action) => page.$eval(`[data-action=${action}]`, (e) => (e.querySelector('button').ariaDisabled === 'true' ? e.querySelector('.why a')?.textContent ?? 'none' : 'allowed'));
      const id = idOf(page);
      const [payment] = (await (await api('GET', `/v1/orders/${id}/payments`)).json()).data;
      const shipments = (await (await api('GET', `/v1/orders/${id}/shipments`)).json()).data;
      const none = (prefix) => `${prefix}_${'0'.repeat(32)}`;
      const requests = {
        cancel: [`/v1/orders/${id}/cancel`], pay: [`/v1/orders/${id}/payments`, { method_token: 'pm_ok' }], ship: [`/v1/orders/${id}/shipments`],
        deliver: [`/v1/shipments/${shipments[0]?.id ?? none('shp')}/deliver`], refund: [`/v1/payments/${payment?.id ?? none('pay')}/refunds`, { reason: 'a test' }],
      };
      for (const [action, [path, body]] of Object.entries(requests)) {
        if ((await shown(action)) === 'allowed') continue;
        const { code } = await (await api('POST', path, body)).json();
        await becomes(() => shown(action), code, `${action} of an order that is ${state}`);
        seen.add(code);
      }
    };
    await place(page, 'later', 'reserved');
    await page.waitForSelector('.state:has-text("Waits")');
    await compare('reserved');
    await place(page, 'decline', 'rejected');
    await page.waitForSelector('.undo[data-status=done]');
    await compare('rejected');
    await place(page, 'approve', 'confirmed');
    await compare('confirmed');
    await act(page, 'ship');
    await page.waitForSelector('.facts:has-text("· shipped")');
    await compare('shipped');
    await act(page, 'deliver');
    await status(page, 'completed');
    await page.waitForSelector('[data-action=deliver] .why a:has-text("SHP_004")');
    await compare('completed');
    await act(page, 'refund');
    await page.waitForSelector('.facts:has-text("· refunded")');
    await page.waitForSelector('[data-action=refund] .why a:has-text("RFD_001")');
    await compare('refunded');
    await place(page, 'later', 'reserved');
    await act(page, 'cancel');
    await status(page, 'cancelled');
    await compare('cancelled');
    assert.deepEqual([...seen].sort(), ['ORD_002', 'ORD_007', 'PAY_001', 'PAY_002', 'RFD_001', 'RFD_003', 'SHP_001', 'SHP_002', 'SHP_003', 'SHP_004']);
  });

  test('an event of the order before does not get into the list of the next', async (t) => {
    const page = await open(t);
    await place(page, 'later', 'reserved');
    const before = idOf(page);
    await page.click('[data-outcome=later]');
    await page.waitForFunction((id) => location.hash !== `#${id}`, before);
    const next = idOf(page);
    // Two events come at once, and while the second is read the address changes.
    await page.addInitScript(([before, next]) => {
      const { fetch } = window;
      const { parse } = JSON;
      const text = [91, 92].map((n) => `id: ${n}\nevent: order.confirmed\ndata: ${JSON.stringify({ id: `evt_${n}`, type: 'order.confirmed', sequence: n, created_at: new Date(), cause: { actor: 'x' }, data: {} })}\n\n`).join('');
      window.fetch = (address, init) => (String(address).endsWith(`${before}/stream`) ? Promise.resolve(new Response(text, { headers: { 'Content-Type': 'text/event-stream' } })) : fetch(address, init));
      JSON.parse = (...args) => {
        if (String(args[0]).includes('evt_92')) {
          history.replaceState(null, '', `#${next}`);
          dispatchEvent(new HashChangeEvent('hashchange'));
        }
        return parse(...args);
      };
    }, [before, next]);
    await page.goBack();
    await page.reload();
    await page.waitForFunction((id) => location.hash === `#${id}`, next);
    await page.waitForSelector('.timeline [data-sequence="2"]');
    await becomes(() => page.$$eval('.timeline [data-sequence]', (all) => all.map((e) => e.dataset.sequence)), ['1', '2']);
  });

  test('time travel shows an earlier version and its difference; a reload keeps the order', async (t) => {
    const page = await open(t);
    await place(page, 'decline', 'rejected');
    await page.waitForSelector('.timeline [data-sequence="4"]');
    await page.focus('#version');
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('ArrowLeft');
    await page.waitForSelector('.states caption:has-text("from version 1")');
    assert.deepEqual(await page.$$eval('.states .differs th', (all) => all.map((e) => e.textContent)), ['status', 'version', 'reservation_expires_at', 'updated_at']);
    assert.equal(await page.textContent('.states tr:has(th:text-is("status")) td'), 'pending reserved');
    assert.equal(await page.getAttribute('#version', 'aria-valuetext'), 'Version 2, order.stock_reserved');
    await page.click('.timeline [data-sequence="1"]');
    await page.waitForSelector('.states caption:has-text("as it was placed")');
    assert.match(await page.textContent('.states tr:has(th:text-is("total")) td'), /^€\d+\.\d\d$/);

    const id = idOf(page);
    await page.reload();
    await status(page, 'rejected');
    assert.equal(idOf(page), id);
    await page.waitForSelector('.timeline [data-sequence="4"]');
    await place(page, 'approve', 'confirmed');
    await page.goBack();
    await status(page, 'rejected');
  });

  test('requests show tier, age and trace id, and are copied as they can be run', async (t) => {
    const page = await open(t, { permissions: ['clipboard-read', 'clipboard-write'] });
    await place(page, 'approve', 'confirmed');
    await page.click('#tab-Requests');
    let answer;
    const held = new Promise((resolve) => { answer = resolve; });
    await page.route('**/v1/products?*', async (route) => {
      await held;
      await route.continue();
    });
    await page.fill('.search', 'tea');
    await page.waitForSelector('.requests li[data-method=GET][data-path*="q=tea"] .badge:text-is("…")');
    answer();
    await shows(page, '.requests li[data-method=GET][data-path*="q=tea"] .badge', / · \d+ s$/);
    const oldest = `.requests li[data-method=GET][data-path="/v1/orders/${idOf(page)}"] >> nth=-1 >> `; // no other comes in its place
    await shows(page, `${oldest}.badge`, /(lru|redis|replica|primary) · \d+ s$/);
    assert.match(await copy(page, `${oldest}.copy:has-text("trace")`), /^[0-9a-f-]{36}$/);
    const order = '.requests li[data-method=POST] >> ';
    const curl = await copy(page, `${order}.copy:has-text("curl")`);
    const echo = execFileSync('sh', ['-c', curl.replace('curl', 'printf "%s\\n"')], { encoding: 'utf8' });
    assert.match(echo, /^Idempotency-Key: [0-9a-f]{32}$/m);
    assert.match(execFileSync('sh', ['-c', `${curl} -s`], { encoding: 'utf8' }), /^HTTP\/1.1 202 .*"id":"ord_/s);
    const typescript = (await copy(page, `${order}.copy:has-text("TypeScript")`)).replace('@ordergate/client', new URL('../../../gen/ts/dist/esm/index.js', import.meta.url).href);
    assert.match(execFileSync(process.execPath, ['--input-type=module', '-e', typescript], { encoding: 'utf8' }), /id: 'ord_[0-9a-f]{32}'/);

    await page.click('#tab-Consistency');
    await page.click('.consistency button:has-text("with the token, and without")');
    await page.waitForSelector('.reads tr:has-text("without")');
    await page.waitForSelector('.reads tr:has-text("with the token")');
    const tiers = await page.$$eval('.consistency tr:has(.could)', (all) => all.map((e) => [Number(e.cells[1].textContent), e.cells[3].textContent]));
    for (const [reads, says] of tiers.slice(0, 3)) assert.match(says, reads ? /^at its last read: / : /^has not answered$/);
    assert.equal(tiers[3][1], 'always had it');
    await shows(page, '.consistency dl', /Position[0-9A-F]+\/[0-9A-F]+/);
  });

  test('a key that is typed in is in the memory alone', async (t) => {
    const page = await open(t, { refused: true, ready: null, address: '/docs/config.json' });
    await page.route('**/console/config.json', (route) => route.fulfill({ json: { api_key: '' } }));
    await page.goto(`${gateway.url}/console`);
    await page.fill('.ask input', 'og_live_real');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.ask .refusal:has-text("would be real")');
    await page.fill('.ask input', 'og_test_wrong');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.ask .refusal a:has-text("AUTH_002")');
    await accessible(page);
    await page.fill('.ask input', gateway.key);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.catalogue [data-sku]');
    await focused(page, '.search'); // it goes on to the shop
    await place(page, 'approve', 'confirmed');
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.click('#tab-Requests');
    assert.match(await copy(page, '.requests li[data-method=POST] >> .copy:has-text("curl")'), /Bearer \$ORDERGATE_KEY/);
    const kept = await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, document.documentElement.outerHTML]));
    assert.ok(!kept.includes(gateway.key));
    await page.reload();
    await page.waitForSelector('.ask');
  });

  test('offline is said, nothing can be sent, and it goes on by itself', async (t) => {
    const page = await open(t, { refused: true });
    await place(page, 'later', 'reserved');
    await page.waitForSelector('[data-action=cancel] button[aria-disabled=false]');
    await page.context().setOffline(true);
    await page.waitForSelector('.offline p');
    await shows(page, '.connection', /^Offline$/);
    await page.waitForSelector('[data-outcome=approve][aria-disabled=true]');
    await page.waitForSelector('[data-action=cancel] button[aria-disabled=true]');
    await accessible(page);
    await api('POST', `/v1/orders/${idOf(page)}/cancel`);
    await page.context().setOffline(false);
    await status(page, 'cancelled');
    await page.waitForSelector('.offline p', { state: 'detached' });
  });

  test('a gateway that was away is found again with nothing in view; an emptied basket stays empty', async (t) => {
    const page = await open(t, { refused: true });
    await page.waitForSelector('.connection:has-text("Connected") .mark.done');
    await page.fill('.search', 'no product is called so');
    await page.waitForSelector('.catalogue .empty');
    await page.click('.basket [aria-label$=" less"]');
    await focused(page, '.basket ul'); // it stays in the basket
    await page.context().setOffline(true);
    await page.waitForSelector('.offline p');
    await page.context().setOffline(false);
    await page.waitForSelector('.offline p', { state: 'detached' });
    await page.fill('.search', '');
    await page.waitForSelector('.catalogue [data-sku]');
    await page.waitForSelector('.basket .empty');
  });

  test('an order whose answer is lost is sent again under its key, and is one order', async (t) => {
    const page = await open(t, { refused: true });
    const placed = [];
    await page.route('**/v1/orders', async (route) => {
      const answer = await route.fetch();
      placed.push((await answer.json()).id);
      await route.abort();
    });
    await page.click('[data-outcome=approve]');
    await page.waitForSelector('.notice .refusal:has-text("NETWORK")');
    await page.unroute('**/v1/orders');
    await page.waitForResponse((answer) => answer.url().includes('/v1/inventory/') && answer.ok());
    await page.waitForSelector('.offline p', { state: 'detached' });
    const [answer] = await Promise.all([page.waitForResponse('**/v1/orders'), page.click('button:has-text("Send again under its key")')]);
    assert.equal(answer.headers()['idempotency-replayed'], 'true');
    await status(page, 'confirmed');
    assert.deepEqual([...new Set(placed)], [idOf(page)]);
  });

  test('a request without an answer outlives a reload, and is sent again on demand alone', async (t) => {
    const page = await open(t, { refused: true });
    let taken;
    const lost = new Promise((resolve) => { taken = resolve; });
    await page.route('**/v1/orders', async (route) => {
      const answer = await route.fetch();
      taken((await answer.json()).id); // and nothing answers the page
    });
    await page.click('[data-outcome=approve]');
    const id = await lost;
    let posts = 0;
    page.on('request', (request) => { posts += request.method() === 'POST'; });
    await page.reload();
    await page.waitForSelector('.notice .refusal:has-text("It was to place an order")');
    await page.waitForSelector('.catalogue [data-sku]');
    assert.equal(posts, 0);
    await page.unroute('**/v1/orders'); // not before: Chromium would let the request that is held go on
    await page.click('button:has-text("Send again under its key")');
    await status(page, 'confirmed');
    assert.equal(idOf(page), id);
    await becomes(() => page.evaluate(() => sessionStorage.getItem('write')), null);
  });

  test('an address that names no order is said, and capitals are taken', async (t) => {
    const page = await open(t);
    await place(page, 'later', 'reserved');
    const id = idOf(page);
    for (const wrong of [id.slice(0, -1), `/orders/${id}`, 'order']) {
      await page.goto(`${gateway.url}/console#${wrong}`);
      await page.waitForSelector('.head:has-text("The address names no order")');
      await becomes(() => page.$eval('.head', (e) => e.offsetHeight), 74, 'the head is no higher than that of an order');
    }
    await page.goto(`${gateway.url}/console#${id.toUpperCase()}`);
    await status(page, 'reserved');
    await becomes(() => idOf(page), id);
    await page.goto(`${gateway.url}/console`);
  });

  test('of an order that is gone nothing else is asked', async (t) => {
    const page = await open(t, { refused: true });
    const inFlight = new Set();
    page.on('request', (request) => { if (/\/(payments|shipments|ord_[0-9a-f]+)$/.test(request.url())) inFlight.add(request); });
    for (const end of ['requestfinished', 'requestfailed']) page.on(end, (request) => inFlight.delete(request));
    await place(page, 'later', 'reserved');
    await page.waitForSelector('.connection:has-text("Live")');
    await page.waitForSelector('.timeline [data-sequence="2"]');
    await becomes(() => inFlight.size, 0);
    await page.route(`**/v1/orders/${idOf(page)}`, (route) => route.fulfill(refusal(404, 'ORD_001')));
    let asked = [];
    page.on('request', (request) => { if (request.url().includes(idOf(page))) asked.push(request.url()); });
    await act(page, 'cancel');
    await page.waitForSelector('.notice .refusal:has-text("ORD_001")');
    await page.waitForSelector('.connection:has-text("Connected")');
    assert.deepEqual(asked.filter((url) => /(payments|shipments)$/.test(url)), []);
    // The version of an event that came before may still be read. Then nothing is, between two looks at the stock of a product.
    const sku = await page.getAttribute('.catalogue [data-sku]', 'data-sku');
    await becomes(async () => {
      asked = [];
      await page.waitForResponse((answer) => answer.url().endsWith(`/v1/inventory/${sku}`));
      return asked;
    }, []);
  });

  test('a reload keeps basket, currency and search; the basket says that it goes on', async (t) => {
    const page = await open(t);
    await page.fill('.search', 'lamp');
    await page.waitForFunction(() => [...document.querySelectorAll('.catalogue [data-sku]')].every((row) => row.dataset.sku.startsWith('LAMP')));
    await page.selectOption('[aria-label=Currency]', 'JPY');
    for (const row of [1, 2, 3]) await page.click(`.catalogue tr:nth-child(${row}) button`);
    const basket = () => page.$eval('.basket', (e) => e.textContent);
    await page.waitForSelector('.basket ul.fade');
    const before = await basket();
    assert.match(before, /Total [34] products.*¥/);
    await page.reload();
    await page.waitForSelector('.catalogue [data-sku]');
    await becomes(basket, before);
    await becomes(() => page.inputValue('.search'), 'lamp');
    for (const width of [1440, 390]) {
      await page.setViewportSize({ width, height: 844 });
      const shown = () => page.$eval('.basket ul', (e) => e.clientHeight / e.querySelector('li').offsetHeight);
      await eventually(shown, (lines) => assert.ok(lines > 2.3 && lines < 2.7, `the third line is cut in its middle: ${lines}`));
    }
    await page.$eval('.basket ul', (e) => e.scrollTo(0, e.scrollHeight));
    await page.waitForSelector('.basket ul:not(.fade)');
  });

  test('a search is no longer than the gateway takes, and a refusal says what is wrong', async (t) => {
    const page = await open(t, { refused: true });
    await page.focus('.search');
    await page.keyboard.insertText('x'.repeat(80));
    await becomes(async () => (await page.inputValue('.search')).length, 64);
    await page.waitForSelector('.catalogue .empty');
    await page.$eval('.search', (e) => { e.maxLength = 100; });
    await page.fill('.search', 'x'.repeat(65));
    await page.waitForSelector('.catalogue .refusal:has-text("REQ_003"):has-text("takes at most 64 characters")');
    await becomes(count(page, '.more'), 0);
  });

  test('what fails for a while is said and read again', async (t) => {
    const page = await open(t, { refused: true });
    await place(page, 'later', 'reserved');
    await page.route(`**/v1/orders/${idOf(page)}`, (route) => route.fulfill(refusal(503, 'SYS_002')));
    await page.reload();
    await page.waitForSelector('.notice .refusal:has-text("SYS_002 A part is away"):has-text("trace-1")');
    await page.unroute(`**/v1/orders/${idOf(page)}`);
    await status(page, 'reserved');
    await becomes(count(page, '.notice .refusal'), 0);
    await page.waitForSelector('.connection:has-text("Live")');
  });

  test('a version and a page of products that cannot be read are read again on demand', async (t) => {
    const page = await open(t, { refused: true });
    await page.route('**/v1/products?*cursor=*', (route) => route.fulfill(refusal(500, 'SYS_001')));
    await page.click('.more');
    await page.waitForSelector('.catalogue .refusal:has-text("SYS_001")');
    await page.unroute('**/v1/products?*cursor=*');
    const rows = await page.$$eval('.catalogue [data-sku]', (all) => all.length);
    await page.click('.more:has-text("Try again")');
    await page.waitForFunction((n) => document.querySelectorAll('.catalogue [data-sku]').length > n, rows);
    await becomes(count(page, '.catalogue .refusal'), 0);

    await place(page, 'later', 'reserved');
    const first = `**/v1/orders/${idOf(page)}?version=1`;
    await page.route(first, (route) => route.fulfill(refusal(500, 'SYS_001')));
    await page.reload();
    await page.waitForSelector('.states .refusal:has-text("SYS_001")');
    await place(page, 'later', 'reserved');
    await page.waitForSelector('.states .differs');
    await page.goBack();
    await page.waitForSelector('.states .refusal');
    await page.unroute(first);
    await page.focus('.states button:has-text("Try again")');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.states .differs');
    await focused(page, '.states'); // it stays in the panel
  });

  test('an error shows code, message, remedy and trace id', async (t) => {
    const page = await open(t, { refused: true, address: `/console#ord_${'0'.repeat(32)}` });
    await page.waitForSelector('.notice .refusal a[href="/docs/errors/ORD_001"]');
    await shows(page, '.notice .refusal', /ORD_001 There is no such order.*Check the id.*trace [0-9a-f-]{36}/s);
    await accessible(page);
    await page.fill('.search', 'no product is called so');
    await page.waitForSelector('.catalogue .empty');
  });

  test('axe finds nothing', async (t) => {
    const page = await open(t);
    await accessible(page);
    await place(page, 'decline', 'rejected');
    await page.waitForSelector('.states .differs');
    for (const tab of ['Events', 'Requests', 'Consistency']) {
      await page.click(`#tab-${tab}`);
      await accessible(page);
    }
    await place(page, 'approve', 'confirmed');
    await page.setViewportSize({ width: 390, height: 844 });
    await accessible(page);
    for (const width of [390, 320, 768, 1100]) {
      await page.setViewportSize({ width, height: 844 });
      await becomes(() => page.evaluate(() => document.documentElement.scrollWidth), width);
    }
    await page.setViewportSize({ width: 1440, height: 900 });
    await becomes(() => page.evaluate(() => document.documentElement.scrollHeight), 900);
  });

  test('on a phone the search says what it is for, the contract has a link, and a refusal stands clear of what follows', async (t) => {
    const page = await open(t, { viewport: { width: 360, height: 800 } });
    assert.ok(await page.$eval('.search', (e) => { e.value = e.placeholder; return e.scrollWidth <= e.clientWidth; }));
    assert.equal(await page.locator('a[href="/openapi.json"]:visible').count(), 1);
    const gap = () => page.evaluate(() => document.querySelector('.saga').getBoundingClientRect().top - document.querySelector('.notice').getBoundingClientRect().bottom);
    assert.ok(await gap() >= 8);
  });

  test('on a narrow phone nothing is cut off', async (t) => {
    const page = await open(t, { refused: true, viewport: { width: 320, height: 2400 } });
    const cut = () => page.$$eval('body *', (all) => all.filter((e) => {
      if (e.closest('.sr, svg, select') || e.offsetParent === null || e.clientWidth === 0) return false;
      return e.getBoundingClientRect().right > innerWidth + 0.5 || (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible');
    }).map((e) => `${e.tagName}.${e.className} in ${innerWidth} px: ${e.textContent.slice(0, 60)}`));
    const whole = async () => {
      for (const width of [320, 375, 390, 479]) {
        await page.setViewportSize({ width, height: 2400 });
        await becomes(cut, []);
      }
    };
    await whole();
    assert.ok(await page.isVisible('.bar nav a'));
    await place(page, 'decline', 'rejected');
    await page.waitForSelector('.states .differs');
    await whole();
    await place(page, 'approve', 'confirmed');
    await page.waitForSelector('[data-action=refund] input');
    await act(page, 'cancel');
    await status(page, 'cancelled');
    await whole();
    await page.click('#tab-Requests');
    await whole();
    await page.click('#tab-Consistency');
    await page.click('.consistency button:has-text("with the token, and without")');
    await page.waitForSelector('.reads tr:has-text("without")');
    await whole();
    await page.goto(`${gateway.url}/console#ord_${'0'.repeat(32)}`);
    await page.waitForSelector('.notice .refusal');
    await whole();
  });

  test('everything can be done by keyboard, and the focus is seen', async (t) => {
    const page = await open(t);
    const press = (name) => page.keyboard.press(name);
    const focus = () => page.evaluate(() => {
      const e = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(e);
      return { name: e.ariaLabel ?? e.textContent, is: e.dataset.outcome ?? e.closest('[data-action]')?.dataset.action ?? e.id, seen: outlineStyle === 'solid' && parseFloat(outlineWidth) >= 2, body: e === document.body };
    });
    const tabTo = async (is, by = 'Tab') => {
      for (let i = 0; i < 120; i++) {
        await press(by);
        const now = await focus();
        if (!now.body) assert.ok(now.seen, `the focus on ${now.name} is seen`);
        if (now.is === is) return page.waitForFunction(() => document.activeElement.ariaDisabled !== 'true');
      }
      assert.fail(`${is} is not reached by ${by}`);
    };
    await press('Tab');
    await becomes(async () => (await focus()).name, 'To the outcomes');
    await press('Enter');
    await becomes(async () => (await focus()).is, 'approve');
    await press('Enter');
    await status(page, 'confirmed');
    await becomes(async () => (await focus()).is, 'approve'); // the focus stays
    await page.waitForFunction(() => /confirmed/.test(document.querySelector('[aria-live]').textContent));
    await tabTo('ship');
    await press('Space');
    await page.waitForSelector('.facts:has-text("· shipped")');
    await tabTo('deliver');
    await press('Enter');
    await status(page, 'completed');
    await tabTo('tab-Events');
    await press('ArrowRight');
    await becomes(async () => (await focus()).is, 'tab-Requests');
    await press('End');
    await becomes(async () => (await focus()).is, 'tab-Consistency');
    await press('Home');
    await tabTo('version');
    await press('Home');
    await page.waitForSelector('.states caption:has-text("as it was placed")');
    await tabTo('later', 'Shift+Tab');
    await press('Enter');
    await status(page, 'reserved');
    await tabTo('cancel');
    await press('Enter');
    await status(page, 'cancelled');
  });

  test('the focus is not lost with its button', async (t) => {
    const page = await open(t, { refused: true });
    await place(page, 'later', 'reserved');
    await page.waitForSelector('.timeline [data-sequence="2"]');
    await page.focus('[aria-label="The version before"]');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.states caption:has-text("as it was placed")');
    await focused(page, '[aria-label="The version before"]');

    await page.route('**/cancel', (route) => route.fulfill(refusal(409, 'ORD_009')));
    await act(page, 'cancel');
    await page.focus('.notice button:has-text("Dismiss")');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.notice .refusal', { state: 'detached' });
    await focused(page, '.order .body');

    await page.focus('[data-outcome=approve]');
    await page.context().setOffline(true);
    await page.waitForSelector('[data-outcome=approve][aria-disabled=true]');
    await focused(page, '[data-outcome=approve]');
  });

  test('nothing jumps, and nothing moves for those who want it so', async (t) => {
    const page = await open(t, { reducedMotion: 'reduce' });
    const boxes = () => page.$$eval('.pane, .saga, .actions, .basket, .outcomes, .timeline, .states, .notice', (all) => all.map((e) => [e.className, e.getBoundingClientRect().top, e.getBoundingClientRect().height]));
    const empty = await boxes();
    await page.click('[data-outcome=slow]');
    await page.waitForSelector('.step[data-status=running]');
    assert.deepEqual(await boxes(), empty);
    assert.deepEqual(await page.evaluate(() => document.getAnimations().length), 0);
    await status(page, 'confirmed');
    assert.deepEqual(await boxes(), empty);
    await place(page, 'decline', 'rejected');
    await page.waitForSelector('.undo');
    assert.deepEqual(await boxes(), empty);
  });

  test('the switch overrides the theme of the system', async (t) => {
    const page = await open(t, { colorScheme: 'light' });
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.click('.theme');
    let dark;
    await eventually(ground, (colour) => assert.notEqual((dark = colour), light));
    await page.reload();
    await becomes(ground, dark);
    await page.waitForSelector('.theme[aria-checked=true]');
    const other = await page.context().newPage();
    await other.goto(`${gateway.url}/console`);
    await other.click('.theme');
    await page.waitForSelector('.theme[aria-checked=false]');
    await becomes(ground, light);
  });

  test('the licences of all that is built in are there', async (t) => {
    const page = await open(t);
    const text = await (await fetch(gateway.url + (await page.getAttribute('.foot a[href*=licenses]', 'href')))).text();
    for (const name of ['preact', '@preact/signals', '@preact/signals-core']) assert.match(text, new RegExp(`^${name} \\d+\\.\\S+, MIT\n\nThe MIT License`, 'm'));
    const folder = mkdtempSync(`${tmpdir()}/ordergate-licence-`);
    t.after(() => rmSync(folder, { recursive: true }));
    writeFileSync(`${folder}/package.json`, '{"name":"unfree","version":"1.0.0"}');
    assert.throws(() => licensesOf([folder]), /unfree 1.0.0 is built in and has no licence text/);
  });

  test('all of it is less than 100 kB gzipped', () => {
    const folder = new URL('../../../gen/console/dist/', import.meta.url);
    const bytes = readdirSync(folder).reduce((sum, name) => sum + gzipSync(readFileSync(new URL(name, folder))).length, 0);
    console.log(`# ${(bytes / 1000).toFixed(1)} kB`);
    assert.ok(bytes < 100_000, `${bytes} bytes`);
  });
});
