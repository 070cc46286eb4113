// `ordergate run` and a Chromium for the tests and the screenshots.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const root = fileURLToPath(new URL('../../../', import.meta.url));

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts the real binary with data of its own, and waits until it is ready. ORDERGATE_URL names one that runs already. */
export async function startGateway() {
  if (process.env.ORDERGATE_URL) return { url: process.env.ORDERGATE_URL, stop: async () => {} };
  const binary = join(root, 'bin/ordergate');
  if (!existsSync(binary)) throw new Error('bin/ordergate is missing: make build');
  const dir = mkdtempSync(join(tmpdir(), 'ordergate-console-'));
  chmodSync(dir, 0o755); // PostgreSQL runs as another user than root
  const address = async () => `127.0.0.1:${await freePort()}`;
  const api = await address();
  const env = { ...process.env, ORDERGATE_DATA_DIR: dir, ORDERGATE_ADDR: api, ORDERGATE_ADMIN_ADDR: await address(), ORDERGATE_PSP_ADDR: '127.0.0.1:0' };
  const program = spawn(binary, ['run'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => program.on('exit', resolve));
  let said = '';
  await new Promise((resolve, reject) => {
    for (const stream of [program.stdout, program.stderr]) {
      stream.on('data', (data) => {
        said += data;
        if (said.includes('Ctrl-C stops everything')) resolve();
      });
    }
    void ended.then((code) => reject(new Error(`ordergate run ended with ${code}\n${said}`)));
  });
  const stop = async () => {
    program.kill('SIGINT');
    await ended;
    rmSync(dir, { recursive: true, force: true });
  };
  return { url: `http://${api}`, stop };
}

export const startBrowser = () => chromium.launch({
  executablePath: execFileSync('sh', [join(root, 'web/chromium.sh')], { encoding: 'utf8' }).trim(),
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [], // Chromium's sandbox refuses root
});
