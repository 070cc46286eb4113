// The gateway and the Chromium of the tests and the screenshots. ORDERGATE_URL names a gateway that runs already, ORDERGATE_KEY a key of it.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { gateway } from '../../gateway.mjs';

const { ORDERGATE_URL, ORDERGATE_KEY = 'og_test_demo_key_for_local_use_only' } = process.env;

/** That of ORDERGATE_URL, or bin/ordergate with data of its own. */
export const startGateway = () => gateway(ORDERGATE_URL ? { URL: ORDERGATE_URL, KEY: ORDERGATE_KEY } : {});

export const startBrowser = () => chromium.launch({
  executablePath: execFileSync('sh', [fileURLToPath(new URL('../../chromium.sh', import.meta.url))], { encoding: 'utf8' }).trim(),
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [], // Chromium's sandbox refuses root
});
