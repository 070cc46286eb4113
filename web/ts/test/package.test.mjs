import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as module from '@ordergate/client';

const require = createRequire(import.meta.url);

test('ES modules and CommonJS offer the same', () => {
  const common = require('@ordergate/client');
  assert.notEqual(common.createOrdergate, module.createOrdergate, 'two builds');
  assert.deepEqual(Object.keys(common).sort(), Object.keys(module).sort());
});

test('an error of one build is known to the other', async () => {
  const common = require('@ordergate/client');
  const og = common.createOrdergate({ baseUrl: 'http://localhost', apiKey: 'k', fetch: async () => new Response('', { status: 401 }) });
  const error = await og.orders.get('ord_').catch((e) => e);
  assert.ok(module.isOrdergateError(error, 'getOrder'));
});

test('the package depends on nothing', () => {
  const { dependencies, peerDependencies, devDependencies } = require('@ordergate/client/package.json');
  assert.deepEqual([dependencies, peerDependencies, devDependencies], [undefined, undefined, undefined]);
});
