// Lints the flows of openapi/flows and, unless it is called with --lint, runs them by redocly respect, which checks each answer against the
// contract, too: against the gateway of URL and KEY, or one of its own.
//
//   make flows [ONLY=pay-later] [URL=http://... KEY=og_test_...]
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { gateway } from '../gateway.mjs';
import { install } from '../install.mjs';

const here = new URL('.', import.meta.url).pathname;
const folder = join(here, '../../openapi/flows');
const { ONLY: only } = process.env;
const flows = readdirSync(folder).filter((name) => name.endsWith('.arazzo.yaml') && (!only || name === `${only}.arazzo.yaml`));
if (flows.length === 0) throw new Error(`openapi/flows has no ${only}.arazzo.yaml`);
const bin = install(here);

// redocly runs the program, which tells its maker nothing.
function redocly(...words) {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' };
  return spawnSync(join(bin, 'redocly'), words, { cwd: folder, env, encoding: 'utf8' });
}

const lint = redocly('lint', '--extends=recommended-strict', '--format=stylish', ...flows);
if (lint.status !== 0) {
  console.error(lint.stdout + lint.stderr);
  process.exit(1);
}
if (process.argv.includes('--lint')) {
  console.log(`${flows.length} flows are valid`);
  process.exit(0);
}
const { url, key, stop } = await gateway();
const run = redocly('respect', ...flows, '-S', `ordergate=${url}`, '-i', `key=${key}`, '-i', `run=${randomUUID()}`);
await stop();
console.log(run.stdout.trim());
if (run.status !== 0) console.error(run.stderr);
const failed = flows.filter((name) => !run.stdout.includes(`✓ ${name} `));
console.log(`\n${flows.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = run.status !== 0 || failed.length > 0 ? 1 : 0;
