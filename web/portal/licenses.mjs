// The licences of what the script of the reference is made of. Scalar's bundle has none of them in it, and they must go along with it.
import { readFileSync } from 'node:fs';
import { licenseIn } from '../shared/licenses.mjs';

// Packages that come without a file of their licence, each with another of the same repository that has it, or with a file of this folder.
const elsewhere = {
  '@ai-sdk/provider-utils': '@ai-sdk/provider',
  '@headlessui/vue': '@headlessui/tailwindcss',
  '@replit/codemirror-css-color-picker': 'codemirror-css-color-picker.txt',
  '@scalar/api-reference': '@scalar/types',
  '@scalar/openapi-types': '@scalar/types',
  '@scalar/schemas': '@scalar/types',
  '@scalar/workspace-store': '@scalar/types',
};
// Packages that the bundle has and no dependency names.
const more = ['tailwindcss', 'unist-util-find-after'];

/**
 * The licences of @scalar/api-reference and of all that it depends on, each text once, with the names of its packages. It throws if one has
 * none, and if the bundle's source map names a package that is not among them. dir has package-lock.json and node_modules.
 */
export function licenses(dir) {
  const { packages } = JSON.parse(readFileSync(`${dir}/package-lock.json`, 'utf8'));
  const found = new Set();
  const add = (at) => {
    if (found.has(at)) return;
    found.add(at);
    for (const name of Object.keys(packages[at].dependencies ?? {})) add(installed(packages, at, name));
  };
  for (const name of ['@scalar/api-reference', ...more]) add(`node_modules/${name}`);

  const texts = new Map();
  for (const at of found) {
    const name = nameOf(at);
    const text = licenseIn(`${dir}/${at}`) || alternative(dir, elsewhere[name]);
    if (!text) throw new Error(`web/portal/licenses.mjs: ${at} has no file of its licence`);
    texts.set(text, [...(texts.get(text) ?? []), `${name} ${packages[at].version}`].sort());
  }
  const names = new Set([...found].map(nameOf));
  const { sources } = JSON.parse(readFileSync(`${dir}/node_modules/@scalar/api-reference/dist/browser/standalone.js.map`, 'utf8'));
  for (const source of sources) {
    const [, name] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(source) ?? [];
    if (name && !names.has(name)) throw new Error(`web/portal/licenses.mjs: the bundle has ${name}, which no dependency names`);
  }
  return `The script of /docs/reference is Scalar's, @scalar/api-reference. It and the packages that it depends on, each under the licence below its name:\n\n${
    [...texts].map(([text, list]) => `${list.join('\n')}\n\n${text}\n`).sort().join(`\n${'-'.repeat(80)}\n\n`)}`;
}

/** The folder of a package as another finds it: in its own node_modules, or in one above. */
function installed(packages, from, name) {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/node_modules/')))) {
    const folder = `${at && `${at}/`}node_modules/${name}`;
    if (packages[folder]) return folder;
    if (!at) throw new Error(`web/portal/package-lock.json has no ${name}, on which ${from} depends`);
  }
}

const nameOf = (at) => at.split('node_modules/').at(-1);

function alternative(dir, name) {
  if (!name) return '';
  return name.endsWith('.txt') ? readFileSync(`${dir}/${name}`, 'utf8').trim() : licenseIn(`${dir}/node_modules/${name}`);
}
