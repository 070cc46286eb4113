// Serves the contract from its examples, by Prism: no gateway, no database. A request is checked against the contract.
//
//   make mock [PORT=4010]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { end, fail, freePort } from '../gateway.mjs';

const here = import.meta.dirname;

/** Starts Prism and returns { url, stop, ended }. */
export async function mock(port) {
  if (!/^[0-9]+$/.test(port) || port < 1 || port > 65535) throw new Error(`PORT=${port} is no port`);
  const child = spawn(join(here, 'node_modules/.bin/prism'), ['mock', '--port', String(port), join(here, '../../gen/api/openapi.yaml')], { stdio: ['ignore', 'pipe', 'pipe'] });
  process.on('exit', () => child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  let said = '';
  await new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        if (said.includes('Prism is listening')) return;
        said += chunk;
        if (said.includes('Prism is listening')) resolve();
      });
    }
    ended.then(() => reject(new Error(said.includes('EADDRINUSE') ? `port ${port} is taken: PORT=... chooses another` : `Prism ended:\n${said}`)));
  });
  return { url: `http://127.0.0.1:${port}`, stop: () => end(child), ended };
}

if (process.argv[1] === import.meta.filename) {
  const { url, ended } = await mock(process.env.PORT || (await freePort())).catch((error) => fail(error.message));
  console.log(`The contract is served from its examples. Any API key will do; Ctrl-C stops it.

  API  ${url}

An order, and the same call refused with a code of yours:

  curl -i ${url}/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f -H 'Authorization: Bearer og_test_any'
  curl -i ${url}/v1/orders/ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f -H 'Authorization: Bearer og_test_any' -H 'Prefer: code=404, example=ORD_001'

Place one:

  curl -i ${url}/v1/orders -H 'Authorization: Bearer og_test_any' -H 'Idempotency-Key: 12345678' -H 'Content-Type: application/json' \\
    -d '{"currency":"EUR","customer_ref":"customer-1","lines":[{"sku":"LAMP-0001","quantity":1}]}'
`);
  await ended;
}
