import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The licence and the notices that the folder of a package has; '' if there are none. */
export function licenseIn(folder) {
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).sort();
  return files.map((file) => readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n').trim()).join('\n\n');
}
