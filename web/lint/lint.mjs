// Lints the contract: the bundle, which make gen writes, by Redocly's recommended rules, ours (rules.mjs) and Spectral's (spectral.mjs); the sources
// that it is made of, so that a finding names the file, and the payment provider's contract by Redocly's. A warning is an error.
import { readFileSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { BaseResolver, Source, createConfig, formatProblems, getTotals, lintDocument } from '@redocly/openapi-core';
import parsers from '@stoplight/spectral-parsers';
import core from '@stoplight/spectral-core';
import { parse } from 'yaml';
import plugin, { names } from './rules.mjs';
import ruleset from './spectral.mjs';

const folder = resolve(import.meta.dirname, '../..');

// Only the bundle has what internal/bundle adds: refusals, unions of them, the values of open enumerations.
export const ours = createConfig({ extends: ['recommended-strict'], plugins: [plugin], rules: Object.fromEntries(names.map((name) => [`ordergate/${name}`, 'error'])) });
export const recommended = createConfig({ extends: ['recommended-strict'], rules: { 'operation-4xx-response': 'off' } });

/** The contract as its authors write it: openapi.yaml with the path items that paths/*.yaml hold. */
export function sources() {
  const root = parse(readFileSync(`${folder}/openapi/openapi.yaml`, 'utf8'));
  for (const file of readdirSync(`${folder}/openapi/paths`)) {
    for (const path of Object.keys(parse(readFileSync(`${folder}/openapi/paths/${file}`, 'utf8'))).filter((key) => key.startsWith('/'))) {
      root.paths[path] = { $ref: `paths/${file}#/${path.replaceAll('~', '~0').replaceAll('/', '~1')}` };
    }
  }
  return JSON.stringify(root);
}

/** The findings of Redocly in a document; refs of its text are relative to its address. */
export async function redocly(text, address, config) {
  const source = new Source(address, text);
  const parsed = text.startsWith('{') ? JSON.parse(text) : parse(text, { maxAliasCount: -1 }); // JSON is YAML, and takes its parser seconds
  return lintDocument({ document: { source, parsed }, config: await config, externalRefResolver: new BaseResolver() });
}

/** The findings of Spectral in a document. */
export async function spectral(text) {
  const linter = new core.Spectral();
  linter.setRuleset(ruleset);
  return linter.run(new core.Document(text, parsers.Json, 'openapi.json'));
}

async function main() {
  const read = (name) => readFileSync(`${folder}/${name}`, 'utf8');
  const bundle = read('gen/api/openapi.json');
  const problems = [
    ...await redocly(bundle, `${folder}/gen/api/openapi.json`, ours),
    ...await redocly(sources(), `${folder}/openapi/openapi.yaml`, recommended),
    ...await redocly(read('openapi/psp.yaml'), `${folder}/openapi/psp.yaml`, recommended),
  ];
  formatProblems(problems, { totals: getTotals(problems), format: 'stylish', maxProblems: 100 });
  const more = await spectral(bundle);
  for (const { code, message, path } of more) console.error(`Spectral: ${code} at #/${path.join('/')}: ${message}`);
  process.exitCode = problems.length + more.length > 0 ? 1 : 0;
}

if (process.argv[1] === import.meta.filename) await main();
