// The portal of a running gateway in a real Chromium: ORDERGATE_URL is its address, ORDERGATE_KEY the key that its pages are told. Of every kind
// of page, at three widths and in both themes: it says nothing on the console, breaks no policy, asks no other host, axe finds nothing, and
// nothing is wider than the screen. SCREENSHOTS=folder keeps a picture of each.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { startBrowser } from '../../chromium.mjs';

const { ORDERGATE_URL: url, ORDERGATE_KEY: key, SCREENSHOTS: screenshots } = process.env;
assert.ok(url && key, 'ORDERGATE_URL and ORDERGATE_KEY must be set');
const axe = readFileSync(fileURLToPath(import.meta.resolve('axe-core')), 'utf8');
const run = promisify(execFile);

let browser;
before(async () => {
  browser = await startBrowser(chromium);
});
after(() => browser.close());

/** A page that notes all that it must not do: what it says, whom it asks, what its policy forbids. */
async function open(t, path, { width = 1440, colorScheme = 'light', ...options } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, baseURL: url, reducedMotion: 'reduce', ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && wrong.push(`${page.url()} says ${message.text()}`));
  page.on('pageerror', (error) => wrong.push(`${page.url()} throws ${error.message}`));
  page.on('request', (request) => !request.url().startsWith(`${url}/`) && !/^(data|blob):/.test(request.url()) && wrong.push(`${page.url()} asks ${request.url()}`));
  await go(page, path);
  return { page, wrong };
}

async function go(page, path) {
  await page.goto(path, { waitUntil: 'load' });
  await page.waitForSelector('html[data-ready]');
  if (path.startsWith('/docs/reference')) await page.waitForSelector('#reference h1, #reference h2');
}

const kinds = ['/docs', '/docs/client', '/docs/guides', '/docs/guides/errors', '/docs/guides/orders', '/docs/errors', '/docs/errors/PAY_003', '/docs/errors/SYS_001', '/docs/reference', '/docs/none'];

for (const colorScheme of ['light', 'dark']) {
  test(`every kind of page is in order: ${colorScheme}`, async (t) => {
    const { page, wrong } = await open(t, '/docs', { colorScheme });
    for (const path of kinds) {
      await go(page, path);
      for (const width of colorScheme === 'light' || screenshots ? [1440, 768, 390] : [1440]) { // the layout is the same in the dark
        await page.setViewportSize({ width, height: 900 });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (over > 0) wrong.push(`${path} is ${over} px wider than ${width} px`);
        if (screenshots) {
          mkdirSync(screenshots, { recursive: true });
          await page.screenshot({ path: join(screenshots, `${path.replace(/\W+/g, '_')}-${width}-${colorScheme}.png`) });
        }
        if (width === 768) continue;
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
        for (const v of violations) wrong.push(`${path} at ${width} px: axe: ${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.failureSummary?.split('\n')[1]?.trim()}`).join('; ')}`);
      }
    }
    assert.deepEqual(wrong.filter((line) => !line.startsWith(`${url}/docs/none says Failed to load resource: the server responded with a status of 404`)), []);
  });
}

test('on a phone a table of three columns is moved sideways, and its columns stay readable', async (t) => {
  const { page } = await open(t, '/docs/guides/errors');
  await page.setViewportSize({ width: 360, height: 800 });
  const widths = await page.$$eval('.scroll:has(th:nth-child(3)) th', (all) => all.map((e) => e.clientWidth));
  assert.ok(widths.length > 2 && Math.min(...widths) > 120, `${widths}`);
});

test('the first page tells the address and the key of this installation', async (t) => {
  const { page, wrong } = await open(t, '/docs');
  assert.equal(await page.textContent('.facts [data-address]'), url);
  assert.equal(await page.textContent('.facts [data-key]'), key);
  assert.deepEqual(wrong, []);
});

// As a newcomer does: the texts are taken from the page and run.
test('a first order runs as it is shown, in each language', async (t) => {
  const { page } = await open(t, '/docs');
  const dir = mkdtempSync(join(tmpdir(), 'portal-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const blocks = async (sample) => (await page.$$eval(`#panel-${sample} pre code`, (all) => all.map((code) => code.textContent)));
  const env = { ...process.env, GOFLAGS: '', GOWORK: 'off' };
  const sh = async (command) => (await run('bash', ['-c', command], { cwd: dir, env })).stdout;
  await Promise.all([
    t.test('curl', async () => {
      const [command] = await blocks('curl');
      const said = await sh(command);
      assert.match(said, /^HTTP\/1.1 201 /);
      assert.match(said, /"status":"confirmed"/);
    }),
    t.test('TypeScript', async () => {
      const [install, program, start] = await blocks('typescript');
      writeFileSync(join(dir, 'first.mjs'), program);
      await sh(install);
      assert.match(await sh(start), /^ord_\w+ confirmed\n$/);
    }),
    t.test('Python', async () => {
      assert.notEqual(await sh('command -v python3 || true'), '', 'there is no python3: sudo apt-get install python3');
      const [program, start] = await blocks('python');
      writeFileSync(join(dir, 'first.py'), program);
      assert.match(await sh(start), /^ord_\w+ confirmed\n$/);
    }),
    t.test('Go', async () => {
      const [program, start] = await blocks('go');
      writeFileSync(join(dir, 'first.go'), program);
      assert.match(await sh(start), /^ord_\w+ confirmed\s*\n$/);
    }),
  ]);
});

test('the search finds codes, operations and guides by the keyboard, and asks no server', async (t) => {
  const { page, wrong } = await open(t, '/docs');
  await page.keyboard.press('/');
  await page.getByRole('combobox').fill('retry');
  await page.getByRole('option').first().waitFor();
  await page.context().setOffline(true); // the index is here
  const first = async (words) => {
    await page.getByRole('combobox').fill(words);
    await page.waitForFunction((words) => document.querySelector('.search [role=option] mark, .search .none:not([hidden])') && document.querySelector('.search input').value === words, words);
    await page.waitForTimeout(0);
    return page.textContent('.search [role=option][aria-selected=true]');
  };
  assert.match(await first('库存不足'), /^INV_002 .*Code/);
  assert.match(await first('cancel order'), /Cancel/);
  assert.match(await first('idempotency'), /Idempotency/i);
  assert.match(await first('/v1/payments'), /payments/i);
  assert.match(await first('pay_003'), /^PAY_003 .*Code/);
  assert.match(await first('watch'), /^(TypeScript client|Follow)/);
  assert.doesNotMatch(await page.textContent('.search [role=listbox]'), /`/);
  await page.context().setOffline(false);
  await page.keyboard.press('Escape');
  assert.equal(await page.isVisible('.search'), false);
  await page.keyboard.press('Control+k');
  await page.keyboard.type('pay_003');
  await page.locator('.search [role=option]').first().waitFor();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/docs/errors/PAY_003');
  assert.deepEqual(wrong, []);
});

test('a code that was typed comes first, and titles before texts', async (t) => {
  const { page } = await open(t, '/docs');
  const index = await (await fetch(`${url}/docs/search.json`)).json();
  for (const { title, text } of index) assert.doesNotMatch(`${title} ${text}`, /`/);
  await page.keyboard.press('/');
  const titles = async (query) => {
    await page.getByRole('combobox').fill(query);
    const shown = () => page.evaluate(() => [...document.querySelectorAll('.search [role=option] > span:first-child')].map((e) => e.textContent));
    await page.waitForFunction((query) => document.querySelector('.search [role=option] mark')?.textContent.toLowerCase().startsWith(query.slice(0, 3)), query.toLowerCase());
    return shown();
  };
  for (const { title } of index.filter(({ kind }) => kind === 'Code')) assert.equal((await titles(title.split(' ')[0]))[0], title);
  for (const query of ['retry', 'payment', 'place order', 'cursor']) {
    const all = (await titles(query)).map((title) => query.split(' ').every((word) => title.toLowerCase().split(/[^a-z0-9]+/).some((w) => w.startsWith(word))));
    assert.deepEqual(all, all.toSorted((a, b) => b - a), query);
  }
});

test('the buttons that copy are seen by a pointer, by the focus and on touch', async (t) => {
  const opacity = (page) => page.$eval('#panel-curl .copy', (e) => getComputedStyle(e).opacity);
  const { page } = await open(t, '/docs');
  assert.equal(await opacity(page), '0');
  await page.focus('#panel-curl pre');
  assert.equal(await opacity(page), '1');
  for (const width of [390, 1024]) assert.equal(await opacity((await open(t, '/docs', { width, hasTouch: true, isMobile: true })).page), '1');
});

test('a search whose index cannot be loaded says so, and tries again', async (t) => {
  const { page, wrong } = await open(t, '/docs');
  await page.route('**/docs/search.json', (route) => route.fulfill({ status: 503, body: 'away' }));
  await go(page, '/docs'); // a page that is open already asked the gateway now and then
  await page.keyboard.press('/');
  await page.getByText('The index of the search cannot be loaded').waitFor();
  await page.unroute('**/docs/search.json');
  await page.getByRole('combobox').fill('pay_003');
  await page.getByRole('option').first().waitFor();
  assert.equal(await page.isVisible('.search .none'), false);
  assert.deepEqual(wrong.filter((line) => !line.includes('status of 503')), []);
});

test('a key that has no name does nothing', async (t) => { // a browser that fills a field in sends one
  const { page, wrong } = await open(t, '/docs');
  await page.evaluate(() => document.body.dispatchEvent(new Event('keydown', { bubbles: true })));
  assert.deepEqual(wrong, []);
});

test('the switch of the theme holds over pages', async (t) => {
  const { page, wrong } = await open(t, '/docs');
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole('button', { name: 'Dark colours' }).click();
  assert.notEqual(await ground(), light);
  await go(page, '/docs/errors');
  assert.notEqual(await ground(), light);
  assert.equal(await page.getByRole('button', { name: 'Dark colours' }).getAttribute('aria-pressed'), 'true');
  assert.deepEqual(wrong, []);
});

test('the tabs and the menu of a phone work by the keyboard', async (t) => {
  const { page, wrong } = await open(t, '/docs', { width: 390 });
  await page.getByRole('tab', { name: 'curl' }).focus();
  await page.keyboard.press('ArrowRight');
  assert.equal(await page.getByRole('tab', { name: 'TypeScript' }).getAttribute('aria-selected'), 'true');
  assert.equal(await page.isVisible('#panel-typescript'), true);
  assert.equal(await page.isVisible('#panel-curl'), false);
  const menu = page.getByRole('button', { name: 'Contents' });
  await menu.focus();
  await page.keyboard.press('Enter');
  assert.equal(await page.isVisible('.side'), true);
  await page.keyboard.press('Escape');
  assert.equal(await page.isVisible('.side'), false);
  assert.equal(await menu.evaluate((element) => element === document.activeElement), true);
  assert.deepEqual(wrong, []);
});

test('the reference sends requests with the key of this installation', async (t) => {
  const { page, wrong } = await open(t, '/docs/reference#tag/products/GET/v1/products');
  /** Sends the example of an operation as it stands there. */
  async function send(method, path) {
    await page.getByRole('button', { name: new RegExp(`^Test Request.*${method.toLowerCase()} ${path}\\)`) }).first().click();
    const answered = page.waitForResponse((response) => new URL(response.url()).pathname === path && response.request().method() === method);
    await page.getByRole('button', { name: /^Send/ }).first().click();
    return answered;
  }
  const list = await send('GET', '/v1/products');
  assert.equal(list.status(), 200);
  assert.equal(list.request().headers().authorization, `Bearer ${key}`);
  await page.getByText('200 OK').first().waitFor();
  await page.keyboard.press('Escape');
  await page.evaluate(() => { location.hash = '#tag/orders/POST/v1/orders'; });
  const order = await send('POST', '/v1/orders');
  assert.equal(order.status(), 201, await order.text());
  assert.equal((await order.json()).status, 'confirmed');
  // The same order once more, then another one: each is an order of its own, until the reader writes a key.
  const orders = [(await order.json()).id];
  const again = async () => {
    const answered = page.waitForResponse((response) => new URL(response.url()).pathname === '/v1/orders' && response.request().method() === 'POST');
    await page.getByRole('button', { name: /^Send/ }).first().click();
    const response = await answered;
    assert.equal(response.status(), 201, await response.text());
    assert.equal(response.headers()['idempotency-replayed'], undefined);
    const { id, lines } = await response.json();
    orders.push(id);
    return lines[0].quantity;
  };
  await again();
  const body = page.locator('[role=dialog] .cm-content[contenteditable=true]').filter({ hasText: 'customer_ref' }).last();
  await body.fill(JSON.stringify({ currency: 'EUR', customer_ref: 'another', lines: [{ sku: 'LAMP-0001', quantity: 3 }] }));
  assert.equal(await again(), 3);
  assert.equal(new Set(orders).size, 3);
  assert.deepEqual(wrong, []);
});

test('the cards of code of the reference follow the theme', async (t) => {
  const grounds = await Promise.all(['light', 'dark'].map(async (colorScheme) => {
    const { page } = await open(t, '/docs/reference#tag/orders/POST/v1/orders', { colorScheme });
    await page.waitForSelector('#reference .dark-mode');
    return page.$$eval('#reference .dark-mode', (all) => all.map((e) => Math.max(...getComputedStyle(e).backgroundColor.match(/\d+/g).slice(0, 3))));
  }));
  assert.ok(Math.min(...grounds[0]) > 200 && Math.max(...grounds[1]) < 80, JSON.stringify(grounds));
});

test('an address where nothing stands leads back, in the dress of the portal', async (t) => {
  const { page } = await open(t, '/docs');
  for (const path of ['/docs/x', '/docs/errors/ORD_999', '/console/x']) {
    const response = await page.goto(path);
    assert.equal(response.status(), 404);
    await page.getByRole('main').getByRole('link', { name: /^First order/ }).click();
    await page.waitForURL('**/docs');
  }
  await page.goto('/docs/errors/ord_001');
  assert.equal(new URL(page.url()).pathname, '/docs/errors/ORD_001');
});

test('a reference without its contract says so', async (t) => {
  const { page } = await open(t, '/docs');
  await page.route('**/openapi.json', (route) => route.fulfill({ status: 503, body: 'away' }));
  await go(page, '/docs/reference');
  assert.match(await page.getByRole('alert').textContent(), /cannot be loaded \(\/openapi.json is 503\)/);
  await page.evaluate(axe);
  assert.deepEqual((await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }))).violations.map((v) => v.id), []);
});

test('the reference opens at what the search found', async (t) => {
  const { page } = await open(t, '/docs');
  const index = await (await fetch(`${url}/docs/search.json`)).json();
  for (const [kind, title] of [['Operation', 'Cancel an order'], ['Event', 'order.stock_reserved']]) {
    const { url: found } = index.find((entry) => entry.kind === kind && entry.title === title);
    await page.goto('about:blank');
    await go(page, found);
    await page.waitForFunction((title) => [...document.querySelectorAll('#reference :is(h2, h3)')].some((h) => h.textContent.includes(title) && h.getBoundingClientRect().top > 0 && h.getBoundingClientRect().top < innerHeight), title);
  }
});

test('each code of the registry has its page, in both languages, and a problem leads there', async () => {
  const { data } = await (await fetch(`${url}/v1/errors`)).json();
  assert.ok(data.length > 50);
  await Promise.all(data.map(async ({ code, status, title, message }) => {
    const page = await fetch(`${url}/docs/errors/${code}`);
    const html = await page.text();
    assert.equal(page.status, 200, code);
    for (const words of [code, `HTTP ${status}`, title, message.en, message['zh-CN'], 'lang="zh-CN"']) assert.ok(html.includes(words.replaceAll('&', '&amp;')), `${code} does not say ${words}`);
  }));
  const problem = await (await fetch(`${url}/v1/orders`)).json();
  assert.equal((await fetch(new URL(problem.type, url))).status, 200);
});

test('every link and every anchor of every page leads somewhere', async () => {
  const pages = new Map();
  const load = (path) => pages.get(path) ?? pages.set(path, fetch(url + path).then(async (r) => ({ status: r.status, type: r.headers.get('content-type'), text: await r.text() }))).get(path);
  const seen = new Set();
  const queue = ['/docs', '/docs/none'];
  const wrong = [];
  while (queue.length) {
    const path = queue.pop();
    if (seen.has(path)) continue;
    seen.add(path);
    const { status, type, text } = await load(path);
    if (status !== 200 && path !== '/docs/none') wrong.push(`${path} is ${status}`);
    if (!type.startsWith('text/html') || path.startsWith('/console')) continue;
    for (const [, href] of text.matchAll(/(?:href|src)="([^"]*)"/g)) {
      const to = new URL(href.replaceAll('&amp;', '&'), url + path);
      if (to.origin !== url) wrong.push(`${path} links to ${href}`);
      else if (to.hash && to.pathname !== '/docs/reference' && !(await load(to.pathname)).text.includes(`id="${to.hash.slice(1)}"`)) wrong.push(`${path} links to ${href}, which has no such place`);
      if (to.origin === url) queue.push(to.pathname);
    }
  }
  assert.ok(seen.has('/docs/licenses.txt'));
  assert.ok(seen.size > 90, `${seen.size} pages`);
  assert.deepEqual(wrong, []);
});
