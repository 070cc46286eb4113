// Every example of the README against a running gateway, each as a program of its own.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { examples } from '../examples.mjs';

const run = promisify(execFile);
const folder = fileURLToPath(new URL('examples.tmp', import.meta.url));
const clean = () => rmSync(folder, { recursive: true, force: true });

before(() => (clean(), mkdirSync(folder)));
after(clean);

for (const { name, title, code, says } of examples()) {
  test(`README: ${title}`, { timeout: 60_000 }, async () => {
    const file = `${folder}/${name}.mts`;
    writeFileSync(file, code);
    const { stdout } = await run(process.execPath, ['--no-warnings', file]).catch((failed) => assert.fail(failed.stderr));
    for (const expected of says) assert.ok(stdout.replaceAll('\u00a0', ' ').includes(expected), `it does not say ${expected}:\n${stdout}`);
  });
}
