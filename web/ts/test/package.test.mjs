// The package as it is published, gen/ts: its form, its weight, and where it runs.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import vm from 'node:vm';
import { gzipSync } from 'node:zlib';
import * as esbuild from 'esbuild';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import * as module from '@ordergate/client';
import { event, end, stream } from './stream.mjs';
import { order, problem, setup } from './server.mjs';

const require = createRequire(import.meta.url);
const run = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));
const published = fileURLToPath(new URL('../../../gen/ts', import.meta.url));

/** The package and a program of it in one text, as a bundler makes it for browsers. */
async function bundle(contents, options = {}) {
  const { outputFiles: [file] } = await esbuild.build({ stdin: { contents, resolveDir: here }, bundle: true, minify: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, ...options });
  return file.text;
}

test('ES modules and CommonJS offer the same', () => {
  const common = require('@ordergate/client');
  assert.notEqual(common.createOrdergate, module.createOrdergate, 'two builds');
  assert.deepEqual(Object.keys(common).sort(), Object.keys(module).sort());
});

test('the README lists every type', () => {
  const declared = readFileSync(join(published, 'dist/esm/index.d.ts'), 'utf8');
  const names = [...declared.matchAll(/\{([^}]*)\}/g)].flatMap(([, list]) => list.match(/\b[A-Z]\w*/g));
  const [, table] = /^## All types\n([^]*?)^## /m.exec(readFileSync(join(published, 'README.md'), 'utf8'));
  assert.deepEqual(table.match(/(?<=`)[A-Z]\w+/g).sort(), names.sort());
});

test('what the README calls an operation is one', async () => {
  const { paths } = JSON.parse(readFileSync(new URL('../../../gen/api/openapi.json', import.meta.url), 'utf8'));
  const operations = Object.values(paths).flatMap((item) => Object.values(item).map(({ operationId }) => operationId));
  const pairs = [...readFileSync(join(published, 'README.md'), 'utf8').matchAll(/`(\w+)` is `(og\.\w+\.\w+)`/g)];
  assert.ok(pairs.length >= 2);
  const asked = [];
  const og = module.createOrdergate({ baseUrl: 'http://test', apiKey: 'og_test_x', maxRetries: 0, fetch: () => Promise.reject(), onRequest: ({ operation }) => asked.push(operation) });
  for (const [, operation, method] of pairs) {
    assert.ok(operations.includes(operation), `${operation} is no operation`);
    const [, part, name] = method.split('.');
    const answer = og[part][name]('ord_1');
    await assert.rejects(answer.next?.() ?? answer);
  }
  assert.deepEqual(asked, pairs.map(([, operation]) => operation));
});

test('the package depends on nothing', () => {
  const { dependencies, peerDependencies, devDependencies, optionalDependencies } = require('@ordergate/client/package.json');
  assert.deepEqual([dependencies, peerDependencies, devDependencies, optionalDependencies], [undefined, undefined, undefined, undefined]);
});

test('publint finds nothing', async () => {
  const { messages, pkg } = await publint({ pkgDir: published, strict: true, level: 'suggestion' });
  assert.deepEqual(messages.map((message) => formatMessage(message, pkg)), []);
});

test('attw finds nothing', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ordergate-pack-'));
  try {
    await run('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: published });
    const { stdout } = await run(join(here, 'node_modules/.bin/attw'), [...globSync(join(folder, '*.tgz')), '--format', 'json']).catch((failed) => failed);
    const { analysis, problems } = JSON.parse(stdout);
    assert.equal(analysis.types.kind, 'included');
    assert.deepEqual(Object.values(problems ?? {}).flat(), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

// The limits are those of an app on a phone: what it costs to place an order, and what the whole client may ever cost.
test('it is small', async (t) => {
  const uses = 'const order = await og.orders.place({}); await og.orders.get(order.id); if (isOrdergateError(order)) throw order;';
  const programs = {
    'everything that is exported': [10_000, "export * from '@ordergate/client';"],
    'createOrdergate': [7_000, `import { createOrdergate, isOrdergateError } from '@ordergate/client'; const og = createOrdergate({}); ${uses}`],
    'createTransport and Orders': [6_000, `import { createTransport, isOrdergateError, Orders } from '@ordergate/client'; const og = { orders: new Orders(createTransport({})) }; ${uses}`],
  };
  const readme = readFileSync(join(published, 'README.md'), 'utf8');
  const told = /: ([\d.]+) kB, minified and gzipped; with the texts of all errors and `money` ([\d.]+) kB\.[^]*? is ([\d.]+) kB with the retries/.exec(readme);
  const sizes = { 'everything that is exported': told[2], createOrdergate: told[1], 'createTransport and Orders': told[3] };
  for (const [name, [limit, program]] of Object.entries(programs)) {
    const bytes = gzipSync(await bundle(program), { level: 9 }).length;
    t.diagnostic(`${name}: ${bytes} bytes, minified and gzipped; at most ${limit}`);
    assert.ok(bytes <= limit, `${name}: ${bytes} bytes`);
    assert.ok(Math.abs(bytes - 1000 * sizes[name]) < 75, `${name}: ${bytes} bytes; the README says ${sizes[name]} kB`);
  }
});

/** A program that does a bit of all: it places after a retry, reads, watches, lists, is refused, times out. It gives what it saw. */
const PROGRAM = `
  async function program({ createOrdergate, isOrdergateError, money }, baseUrl) {
    const og = createOrdergate({ baseUrl, apiKey: 'og_test_key' });
    const order = await og.orders.place({ currency: 'EUR', customer_ref: 'c', lines: [{ sku: 'A', quantity: 1 }] });
    const events = [];
    for await (const event of og.orders.watch(order.id)) events.push(event.sequence);
    const listed = [];
    for await (const { id } of og.orders.list()) listed.push(id);
    const refused = await og.orders.get('none').catch((error) => isOrdergateError(error, 'getOrder') && error.code);
    const late = await og.orders.saga('late', { timeoutMs: 50, maxRetries: 0 }).catch((error) => error.cause.name);
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    const aborted = await og.orders.saga('late', { signal: stop.signal }).catch((error) => error.code);
    return JSON.stringify([order.status, events, listed.length, refused, late, aborted, money.format({ amount: 1999, currency: 'EUR' }, 'en')]);
  }`;
const SAW = '["confirmed",[1,2],1,"ORD_001","TimeoutError","ABORTED","€19.99"]';

async function serverOf(t) {
  let placed = 0;
  const { baseUrl } = await setup(t, [({ method, url }) => {
    if (method === 'POST') return placed++ ? { status: 201, body: order() } : problem(503, 'SYS_002', true, {}, { 'Retry-After': '0' });
    if (/stream$/.test(url)) return stream(event(1), event(2), end('terminal'));
    if (/saga$/.test(url)) return new Promise(() => {});
    if (/none$/.test(url)) return problem(404, 'ORD_001');
    return { body: { data: [order()], next_cursor: null } };
  }]);
  return baseUrl;
}

test('it runs where there are web globals and nothing else', async (t) => {
  const names = ['AbortController', 'AbortSignal', 'clearTimeout', 'crypto', 'DOMException', 'fetch', 'Headers', 'performance', 'Response', 'setTimeout', 'TextDecoder'];
  const context = vm.createContext(Object.fromEntries(names.map((name) => [name, globalThis[name]])));
  vm.runInContext(await bundle("export * from '@ordergate/client';", { format: 'iife', globalName: 'client' }), context);
  const saw = vm.runInContext(`(${PROGRAM})`, context)(vm.runInContext('client', context), await serverOf(t));
  assert.equal(await saw, SAW);
});

for (const [runtime, pattern, args] of [['Deno', '@deno/*/deno', ['run', '--quiet', '--no-config', '--no-lock', '--allow-net=127.0.0.1']], ['Bun', '@oven/*/bin/bun', ['run']]]) {
  test(`it runs on ${runtime}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'ordergate-run-'));
    try {
      writeFileSync(join(folder, 'client.mjs'), await bundle("export * from '@ordergate/client';"));
      writeFileSync(join(folder, 'main.mjs'), `import * as client from './client.mjs';\n${PROGRAM}\nconsole.log(await program(client, ${JSON.stringify(await serverOf(t))}));`);
      const [binary] = globSync(join(here, 'node_modules', pattern));
      assert.ok(binary, `npm installed no ${runtime} for this machine`);
      const { stdout } = await run(binary, [...args, join(folder, 'main.mjs')], { timeout: 20_000, env: { ...process.env, NO_COLOR: '1' } });
      assert.equal(stdout.trim(), SAW);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

test('an error of another copy and of another realm is known', async () => {
  const realm = vm.createContext({ AbortController, DOMException, Headers, Response, performance, crypto, setTimeout, clearTimeout });
  vm.runInContext(await bundle("export * from '@ordergate/client';", { format: 'iife', globalName: 'client' }), realm);
  const copies = { CommonJS: require('@ordergate/client'), 'another realm': vm.runInContext('client', realm) };
  for (const [name, copy] of Object.entries(copies)) {
    const fetch = async () => Response.json(problem(401, 'AUTH_002').body, { status: 401 });
    const error = await copy.createOrdergate({ baseUrl: 'http://localhost', apiKey: 'k', fetch }).orders.get('ord_').catch((e) => e);
    assert.equal(error instanceof module.OrdergateError, false, name);
    assert.ok(module.isOrdergateError(error, 'getOrder') && error.is('AUTH_002'), name);
    assert.ok(copy.isOrdergateError(error) && !module.isOrdergateError(error, 'placeOrder'), name);
  }
  for (const other of [null, undefined, 'x', new Error('x'), { name: 'OrdergateError', problem: {} }]) assert.equal(module.isOrdergateError(other), false);
});
