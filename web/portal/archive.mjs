// The TypeScript client as `npm install` takes it from an address: a tar in gzip. It is written here and not by `npm pack`, whose bytes depend on
// the zlib of the machine.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { gzipSync } from 'fflate';

/** The archive of a built package: package.json, README.md, LICENSE and what its `files` names. Equal files give equal bytes. */
export function clientArchive(dir) {
  const { files } = JSON.parse(readFileSync(`${dir}/package.json`, 'utf8'));
  const names = [];
  const collect = (name) => {
    if (statSync(`${dir}/${name}`).isDirectory()) for (const child of readdirSync(`${dir}/${name}`).sort()) collect(`${name}/${child}`);
    else names.push(name);
  };
  for (const name of ['package.json', 'README.md', 'LICENSE', ...files]) collect(name);
  const blocks = names.flatMap((name) => {
    const content = readFileSync(`${dir}/${name}`);
    return [header(`package/${name}`, content.length), content, Buffer.alloc(-content.length & 511)];
  });
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]), { level: 9, mtime: 0 });
}

/** The block before a file, of the ustar format. Its times are those of npm's own archives. */
function header(name, size) {
  const block = Buffer.alloc(512);
  if (name.length > 100) throw new Error(`${name} is too long for the archive`);
  const octal = (value, length) => `${value.toString(8).padStart(length - 1, '0')}\0`;
  block.write(name, 0);
  block.write(octal(0o644, 8) + octal(0, 8) + octal(0, 8) + octal(size, 12) + octal(499162500, 12) + ' '.repeat(8) + '0', 100);
  block.write('ustar\x0000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}
