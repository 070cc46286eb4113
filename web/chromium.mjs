// The Chromium of the tests and the pictures.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** Starts the Chromium that web/chromium.sh finds. `chromium` is that of the caller's playwright-core, which by itself uses no sandbox: root could have none. */
export const startBrowser = (chromium) => chromium.launch({ executablePath: execFileSync('sh', [join(import.meta.dirname, 'chromium.sh')], { encoding: 'utf8' }).trim() });
