// Lints the flows of openapi/flows and, unless it is called with --lint, runs them by redocly respect, which checks each answer against the
// contract, too: against the gateway of URL and KEY, or one of its own.
//
//   make flows [ONLY=pay-later] [URL=http://... KEY=og_test_...]
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail, gateway } from '../gateway.mjs';

const here = import.meta.dirname;
const folder = join(here, '../../openapi/flows');
const { ONLY: only } = process.env;
const all = readdirSync(folder).filter((name) => name.endsWith('.arazzo.yaml'));
const flows = all.filter((name) => !only || name === `${only}.arazzo.yaml`);
if (flows.length === 0) fail(`there is no flow ${only}: ${all.map((name) => name.replace('.arazzo.yaml', '')).join(', ')}`);

// redocly runs the program, which tells its maker nothing, and returns { status, stdout, stderr }.
function redocly(...words) {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' };
  return new Promise((resolve, reject) => {
    const child = spawn(join(here, 'node_modules/.bin/redocly'), words, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const said = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) child[name].setEncoding('utf8').on('data', (chunk) => (said[name] += chunk));
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, ...said }));
  });
}

const lint = await redocly('lint', '--extends=recommended-strict', '--format=stylish', ...flows);
if (lint.status !== 0) {
  console.error(lint.stdout + lint.stderr);
  process.exit(1);
}
if (process.argv.includes('--lint')) {
  console.log(`${flows.length} flows are valid`);
  process.exit(0);
}
const { url, key, stop } = await gateway().catch((error) => fail(error.message));
let run;
try {
  run = await redocly('respect', ...flows, '-S', `ordergate=${url}`, '-i', `key=${key}`, '-i', `run=${randomUUID()}`);
} finally {
  await stop();
}
console.log(run.stdout.trim());
if (run.status !== 0) console.error(run.stderr);
const failed = flows.filter((name) => !run.stdout.includes(`✓ ${name} `));
console.log(`\n${flows.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = run.status !== 0 || failed.length > 0 ? 1 : 0;
