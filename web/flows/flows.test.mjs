// Wrong use of `make flows` is told by one sentence, before any flow runs.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freePort } from '../gateway.mjs';

const refusing = createServer((_, response) => response.writeHead(401, { 'Content-Type': 'application/problem+json' }).end('{"code":"AUTH_002"}'));
let refusingURL;

before(async () => {
  await once(refusing.listen(0, '127.0.0.1'), 'listening');
  refusingURL = `http://127.0.0.1:${refusing.address().port}`;
});
after(() => refusing.close());

async function flows(env) {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'run.mjs')], { env: { ...process.env, ONLY: '', URL: '', KEY: '', ...env } });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const [status] = await once(child, 'close');
  return { status, said: said.trim() };
}

test('wrong use is one sentence', async () => {
  const nobody = `http://127.0.0.1:${await freePort()}`;
  for (const [env, sentence] of [
    [{ ONLY: 'nope' }, /^there is no flow nope: .*pay-later/],
    [{ ONLY: 'pay-later', URL: refusingURL }, /^URL and KEY belong together/],
    [{ ONLY: 'pay-later', KEY: 'og_test_x' }, /^URL and KEY belong together/],
    [{ ONLY: 'pay-later', URL: '127.0.0.1:80', KEY: 'og_test_x' }, /^URL=127.0.0.1:80 is no address/],
    [{ ONLY: 'pay-later', URL: nobody, KEY: 'og_test_x' }, /^nobody answers at http:\/\/127/],
    [{ ONLY: 'pay-later', URL: `${refusingURL}/`, KEY: 'og_test_x' }, /^KEY is refused by http:\/\/127.*: 401 AUTH_002$/],
  ]) {
    const { status, said } = await flows(env);
    assert.equal(status, 2, said);
    assert.match(said, sentence);
    assert.equal(said.split('\n').length, 1, said);
  }
});
