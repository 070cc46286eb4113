// The types of the package, and every example of its README and of its sources, under what a strict project may have set.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { examples, sourceExamples, withoutExample } from './examples.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const run = promisify(execFile);
const STRICT = {
  noEmit: true, strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, verbatimModuleSyntax: true, isolatedModules: true, skipLibCheck: false,
  noImplicitOverride: true, noPropertyAccessFromIndexSignature: true, target: 'es2022',
};
const WEB = { lib: ['es2022', 'dom', 'dom.iterable'], types: [] };
const NODE = { lib: ['es2022'], types: ['node'] };
const old = 'typescript-5.4';

async function compiles(name, compiler, compilerOptions, files) {
  const config = `${here}tsconfig.${name}.tmp.json`;
  writeFileSync(config, JSON.stringify({ compilerOptions: { ...STRICT, ...compilerOptions }, files }));
  const folder = compiler === old ? `${here}node_modules/${old}` : `${here}../node_modules/typescript`;
  try {
    await run(process.execPath, [`${folder}/bin/tsc`, '-p', config], { cwd: here });
  } catch ({ stdout }) {
    assert.fail(stdout);
  } finally {
    rmSync(config);
  }
}

for (const [i, [name, compiler, options, files]] of [
  ['TypeScript 6, nodenext, in Node', 'typescript', { module: 'nodenext', ...NODE }, ['client.types.mts', 'commonjs.types.cts']],
  ['TypeScript 6, bundler, in a page', 'typescript', { module: 'esnext', moduleResolution: 'bundler', ...WEB }, ['client.types.mts']],
  ['TypeScript 5.4, node16, in Node', old, { module: 'node16', ...NODE }, ['client.types.mts', 'commonjs.types.cts']],
  ['TypeScript 5.4, bundler, in a page', old, { module: 'esnext', moduleResolution: 'bundler', ...WEB }, ['client.types.mts']],
].entries()) test(`the types hold: ${name}`, () => compiles(i, compiler, options, files));

test('every example compiles', async () => {
  const folder = `${here}examples.tmp`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  try {
    const all = [...examples(), ...sourceExamples()];
    assert.ok(all.length > 50, `${all.length} examples were found`);
    const files = all.map(({ name, code }) => (writeFileSync(`${folder}/${name}.mts`, code), `${folder}/${name}.mts`));
    await compiles('examples', 'typescript', { module: 'nodenext', ...WEB }, files);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

// As a newcomer types it, with the flags that are written and no others.
for (const compiler of ['typescript', old]) test(`the first program of the repository's README compiles as it says: ${compiler}`, async () => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const [, flags] = /`npx tsc (.*) first\.mts`/.exec(readme);
  const [, program] = /first\.mts[^]*?```ts\n([^]*?)```/.exec(readme);
  const folder = mkdtempSync(join(tmpdir(), 'ordergate-first-'));
  try {
    mkdirSync(`${folder}/node_modules/@ordergate`, { recursive: true });
    symlinkSync(fileURLToPath(new URL('../../../gen/ts', import.meta.url)), `${folder}/node_modules/@ordergate/client`);
    writeFileSync(`${folder}/first.mts`, program);
    const tsc = compiler === old ? `${here}node_modules/${old}` : `${here}../node_modules/typescript`;
    await run(process.execPath, [`${tsc}/bin/tsc`, ...flags.split(' '), 'first.mts'], { cwd: folder }).catch(({ stdout }) => assert.fail(stdout));
    assert.deepEqual(readdirSync(folder).sort(), ['first.mts', 'node_modules'], 'it wrote over the first.mjs beside it');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('every method has an example', () => assert.deepEqual(withoutExample(), []));
