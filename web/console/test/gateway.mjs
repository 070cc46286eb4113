// The gateway and the Chromium of the tests and the screenshots. ORDERGATE_URL names a gateway that runs already, ORDERGATE_KEY a key of it.
import { chromium } from 'playwright-core';
import * as browsers from '../../chromium.mjs';
import { gateway } from '../../gateway.mjs';

const { ORDERGATE_URL, ORDERGATE_KEY = 'og_test_demo_key_for_local_use_only' } = process.env;

/** That of ORDERGATE_URL, or bin/ordergate with data of its own. */
export const startGateway = () => gateway(ORDERGATE_URL ? { URL: ORDERGATE_URL, KEY: ORDERGATE_KEY } : {});

export const startBrowser = () => browsers.startBrowser(chromium);
