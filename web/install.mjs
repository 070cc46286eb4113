// Installs what the package-lock.json of a folder says, unless that was done.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Returns the folder with the programs that are installed. */
export function install(dir) {
  const [lock, done] = [join(dir, 'package-lock.json'), join(dir, 'node_modules/.installed')];
  if (!existsSync(done) || readFileSync(lock, 'utf8') !== readFileSync(done, 'utf8')) {
    const { status } = spawnSync('npm', ['ci', '--no-progress', '--loglevel=error'], { cwd: dir, stdio: ['ignore', 2, 2] });
    if (status !== 0) throw new Error(`npm ci fails in ${dir}`);
    cpSync(lock, done);
  }
  return join(dir, 'node_modules/.bin');
}
