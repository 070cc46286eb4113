import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { licenseIn } from '../shared/licenses.mjs';

/** The licence texts of packages, by their folders. A package without one is an error: its code may not be given on. */
export function licensesOf(folders) {
  return folders.map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const text = licenseIn(folder);
    if (!text) throw new Error(`${name} ${version} is built in and has no licence text in ${folder}`);
    return `${name} ${version}, ${license}\n\n${text}\n`;
  }).sort().join(`\n${'-'.repeat(80)}\n\n`);
}

/** Writes licenses.txt: the licence of each package whose code is in the pages. */
export const licenses = () => ({
  name: 'licenses',
  generateBundle(_, bundle) {
    const modules = Object.values(bundle).flatMap((chunk) => Object.keys(chunk.modules ?? {}));
    const folders = new Set(modules.map((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0]).filter(Boolean));
    this.emitFile({ type: 'asset', fileName: 'licenses.txt', source: `The console at /console holds code of these packages.\n\n${licensesOf([...folders])}` });
  },
});
