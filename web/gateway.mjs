// A gateway for the tools that work against a running one: that of URL and KEY, or bin/ordergate with data of its own, which is
// removed at the end.
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const binary = join(import.meta.dirname, '../bin/ordergate');

/** A TCP port of this machine that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** A folder in memory if the machine has one, which other users may enter: PostgreSQL runs as another user if we are root. */
export function scratch(name) {
  const dir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `ordergate-${name}-`));
  chmodSync(dir, 0o755);
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Ends a process that we started: politely, and after ten seconds in earnest. */
export async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(timer);
}

/** Ends the program by a sentence for its user, without a stack: none of our lines is wrong. */
export function fail(sentence) {
  console.error(sentence);
  process.exit(2);
}

// accepted asks an address once whether it takes the key, so that what follows does not fail for that in many ways.
async function accepted(url, key) {
  if (!/^https?:\/\/[^/?#]+$/.test(url) || !URL.canParse(url)) throw new Error(`URL=${url} is no address such as http://127.0.0.1:8080`);
  const response = await fetch(`${url}/v1/orders?limit=1`, { headers: { Authorization: `Bearer ${key}` } }).catch((error) => {
    throw new Error(`nobody answers at ${url}: ${error.cause?.message || error.cause?.code || error.message}`);
  });
  if (response.ok) return;
  const { code = 'without a code' } = await response.json().catch(() => ({}));
  if (response.status === 401 || response.status === 403) throw new Error(`KEY is refused by ${url}: ${response.status} ${code}`);
  throw new Error(`${url} does not list orders: ${response.status} ${code}`);
}

/** Returns { url, key, stop }. Nothing of it runs on if it fails. */
export async function gateway({ URL: url, KEY: key } = process.env) {
  if (url || key) {
    if (!url || !key) throw new Error('URL and KEY belong together: URL=http://... KEY=og_test_..., or neither for a gateway of its own');
    url = url.replace(/\/+$/, '');
    await accepted(url, key);
    return { url, key, stop: async () => {} };
  }
  if (!existsSync(binary)) throw new Error('bin/ordergate is missing: make build');
  const [api, admin, payments] = [await freePort(), await freePort(), await freePort()];
  const child = spawn(binary, ['run'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      ORDERGATE_DATA_DIR: join(scratch('gateway'), 'data'),
      ORDERGATE_ADDR: `127.0.0.1:${api}`,
      ORDERGATE_ADMIN_ADDR: `127.0.0.1:${admin}`,
      ORDERGATE_PSP_ADDR: `127.0.0.1:${payments}`,
    },
  });
  process.on('exit', () => child.kill('SIGKILL'));
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => end(child).then(() => process.exit(1)));
  let said = '';
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', () => reject(new Error(`bin/ordergate ended:\n${said}`)));
    child.stdout.on('data', (chunk) => {
      said += chunk;
      if (said.includes('Ctrl-C stops everything')) resolve();
    });
    setTimeout(() => reject(new Error(`bin/ordergate is not ready in two minutes:\n${said}`)), 120_000).unref();
  }).catch(async (error) => {
    await end(child);
    throw error;
  });
  return { url: `http://127.0.0.1:${api}`, key: 'og_test_demo_key_for_local_use_only', stop: () => end(child) };
}
