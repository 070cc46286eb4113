// The build of the portal, in a copy of what it reads; and what its files promise.
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { licenses } from '../licenses.mjs';

const root = join(import.meta.dirname, '../../..');
const portal = join(root, 'web/portal');
const run = promisify(execFile);

/** A folder of its own, which is removed at the end of the test. */
function scratch(t) {
  const dir = mkdtempSync(join(tmpdir(), 'portal-build-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A copy of all that the build reads; build() runs it there. */
function copy(t) {
  const dir = scratch(t);
  for (const name of ['openapi', 'gen/api', 'gen/ts', 'web/shared']) cpSync(join(root, name), join(dir, name), { recursive: true });
  cpSync(portal, join(dir, 'web/portal'), { recursive: true, filter: (name) => name !== join(portal, 'node_modules') });
  symlinkSync(join(portal, 'node_modules'), join(dir, 'web/portal/node_modules'));
  return { dir, build: () => run(process.execPath, ['build.mjs'], { cwd: join(dir, 'web/portal') }) };
}

test('equal input gives equal bytes', async (t) => {
  const { dir, build } = copy(t);
  await build();
  const [built, kept] = [join(dir, 'gen/portal'), join(root, 'gen/portal')];
  const names = (folder) => readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(folder.length)).sort();
  assert.deepEqual(names(built), names(kept));
  for (const name of names(kept)) assert.ok(readFileSync(built + name).equals(readFileSync(kept + name)), `${name} differs: make gen`);
});

test('a code of a family without a title ends the build', async (t) => {
  const { dir, build } = copy(t);
  const [errors, texts] = [join(dir, 'openapi/errors.yaml'), join(dir, 'web/portal/codes.yaml')];
  const code = /^ {2}PAY_002:\n(?: {4}.*\n)*/m.exec(readFileSync(errors, 'utf8'))[0];
  writeFileSync(errors, readFileSync(errors, 'utf8').replace(code, code + code.replace('PAY_002', 'TAX_001')));
  appendFileSync(texts, '\nTAX_001:\n  zh: {cause: 原因, remedy: 处理}\n');
  await assert.rejects(build(), /families has no title for TAX, the family of TAX_001/);
});

test('a guide without a line for the first page ends the build', async (t) => {
  const { dir, build } = copy(t);
  writeFileSync(join(dir, 'openapi/guides/99-taxes.md'), '# Taxes\n\nA tax is due.\n');
  await assert.rejects(build(), /guides.yaml has no line for taxes/);
});

test('the archive of the client has the files that npm would pack', () => {
  const tar = gunzipSync(readFileSync(join(root, 'gen/portal/dist/client.tgz')));
  const names = [];
  for (let at = 0; tar[at]; at += 512 + Math.ceil(parseInt(tar.toString('latin1', at + 124, at + 135), 8) / 512) * 512) {
    names.push(tar.toString('latin1', at, at + 100).replace(/\0.*/, '').replace(/^package\//, ''));
  }
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: join(root, 'gen/ts'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  assert.deepEqual(names.sort(), files.map((file) => file.path).sort());
  assert.ok(names.includes('LICENSE'));
});

test('the licences name what the reference is made of', () => {
  const text = readFileSync(join(root, 'gen/portal/dist/licenses.txt'), 'utf8');
  for (const name of ['@scalar/api-reference', 'vue', 'tailwindcss', 'focus-trap', 'tabbable', '@codemirror/view', '@headlessui/vue', 'highlight.js', 'lowlight', 'unist-util-find-after']) {
    assert.match(text, new RegExp(`^${name} \\d`, 'm'));
  }
});

test('a part without a licence, or that no dependency names, ends the build', (t) => {
  const dir = scratch(t);
  const packages = {};
  const install = (name, dependencies, files) => {
    packages[`node_modules/${name}`] = { version: '1.0.0', dependencies };
    mkdirSync(join(dir, 'node_modules', name), { recursive: true });
    for (const [file, text] of Object.entries(files)) writeFileSync(join(dir, 'node_modules', name, file), text);
    writeFileSync(join(dir, 'package-lock.json'), JSON.stringify({ packages }));
  };
  for (const name of ['@scalar/types', 'tailwindcss', 'unist-util-find-after', 'part']) install(name, {}, { LICENSE: `Text of ${name}` });
  install('@scalar/api-reference', { part: '1' }, {});
  mkdirSync(join(dir, 'node_modules/@scalar/api-reference/dist/browser'), { recursive: true });
  const map = (...sources) => writeFileSync(join(dir, 'node_modules/@scalar/api-reference/dist/browser/standalone.js.map'), JSON.stringify({ sources }));
  map('../../node_modules/.pnpm/part@1/node_modules/part/index.js');
  assert.match(licenses(dir), /\npart 1\.0\.0\n\nText of part\n/);
  map('../../node_modules/.pnpm/@a+other@1/node_modules/@a/other/index.js');
  assert.throws(() => licenses(dir), /the bundle has @a\/other, which no dependency names/);
  install('part', { bare: '1' }, {});
  install('bare', {}, { 'README.md': 'no licence' });
  assert.throws(() => licenses(dir), /node_modules\/bare has no file of its licence/);
});
