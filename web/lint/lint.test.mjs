// Every rule of ours finds what it is for: the contract is broken in one place, and the rule alone says so.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { createConfig } from '@redocly/openapi-core';
import { ours, redocly, recommended, sources, spectral } from './lint.mjs';
import plugin, { names } from './rules.mjs';

const folder = resolve(import.meta.dirname, '../..');
const bundle = readFileSync(`${folder}/gen/api/openapi.json`, 'utf8');
const only = createConfig({ plugins: [plugin], rules: Object.fromEntries(names.map((name) => [`ordergate/${name}`, 'error'])) });

const breaks = {
  'full-discriminator': [
    (d) => delete firstUnion(d).discriminator,
    (d) => delete firstUnion(d).discriminator.mapping[Object.keys(firstUnion(d).discriminator.mapping)[0]],
    (d) => delete d.components.schemas.Event.discriminator.mapping['order.paid'],
  ],
  'no-inline-union': [(d) => {
    const content = Object.values(d.components.responses).find((r) => r.content?.['application/problem+json']).content['application/problem+json'];
    content.schema = { oneOf: [content.schema, { type: 'null' }] };
  }],
  'no-read-only': [(d) => (d.components.schemas.Order.properties.version.readOnly = true), (d) => (d.components.schemas.PayOrder.properties.method_token.writeOnly = true)],
  'null-is-a-type': [(d) => (d.components.schemas.Order.properties.reference = { type: 'string', nullable: true, description: 'A number.' })],
  'const-has-type': [(d) => delete d.components.schemas.Rejection.properties.retryable.type],
  'exact-numbers': [
    (d) => (d.components.schemas.Money.properties.amount.maximum = 2 ** 53),
    (d) => delete d.components.schemas.Order.properties.version.maximum,
    (d) => delete d.components.schemas.SagaStep.properties.tries.format,
    (d) => (d.components.schemas.Order.properties.weight = { type: 'number', description: 'Its weight.' }) && d.components.schemas.Order.required.push('weight'),
  ],
  'no-uuid-format': [(d) => (d.components.schemas.OrderID.format = 'uuid')],
  'no-enum-in-answers': [(d) => (d.components.schemas.OrderStatus.enum = ['pending']), (d) => (d.components.headers.ServedBy.schema.enum = ['lru'])],
  'always-present': [(d) => d.components.schemas.Order.required.pop(), (d) => delete d.components.schemas.OrderCreatedData.required],
  'closed-requests': [(d) => delete d.components.schemas.PlaceOrderLine.unevaluatedProperties, (d) => delete d.components.schemas.UpdateOrder.unevaluatedProperties],
  'bounded-requests': [
    (d) => delete d.components.schemas.CancelOrder.properties.reason.maxLength,
    (d) => delete d.components.schemas.PlaceOrder.properties.lines.maxItems,
    (d) => delete d.components.schemas.PlaceOrderLine.properties.quantity.maximum,
    (d) => delete d.components.schemas.Metadata.maxProperties,
    (d) => delete d.components.parameters.Cursor.schema.maxLength,
  ],
  'no-signed-example': [
    (d) => (d.components.parameters.ConsistencyToken.example = '1.0'),
    (d) => (d.components.parameters.Cursor.schema.examples = ['abc']),
    (d) => (d.components.headers.ConsistencyToken.example = '1.0'),
  ],
  'requests-have-examples': [
    (d) => delete d.components.schemas.PayOrder.properties.method_token.examples,
    (d) => delete d.components.schemas.AddressPatch.properties.line2.examples,
    (d) => delete d.components.parameters.Prefer.example,
    (d) => delete d.components.schemas.OrderID.examples,
  ],
  'answer-headers': [
    (d) => delete d.paths['/v1/orders/{order_id}'].get.responses['200'].headers.Age,
    (d) => delete d.paths['/v1/orders'].post.responses['201'].headers.Location,
    (d) => delete d.paths['/v1/orders'].get.responses['304'].headers.ETag,
    (d) => delete d.components.headers.ETag.required,
    (d) => { for (const [name, r] of Object.entries(d.components.responses)) if (name.startsWith('Refusal503')) delete r.headers['Retry-After']; },
    (d) => { for (const [name, r] of Object.entries(d.components.responses)) if (name.startsWith('Refusal401')) delete r.headers['WWW-Authenticate']; },
    (d) => delete d.paths['/v1/products'].get.responses['304'],
  ],
  'lists-are-pages': [
    (d) => (d.paths['/v1/orders'].get.parameters = d.paths['/v1/orders'].get.parameters.filter((p) => p.$ref !== '#/components/parameters/Cursor')),
    (d) => { d.components.schemas.RefundList.properties.total = { type: 'string', description: 'A count.' }; d.components.schemas.RefundList.required.push('total'); },
  ],
  'links-fit': [
    (d) => (d.components.links.OrderSaga.operationId = 'getSaga'),
    (d) => (d.components.links.Order.parameters = {}),
    (d) => (d.components.links.OrderPayment.parameters.payment_id = '$response.body#/id'),
    (d) => (d.components.links.OrderOf.parameters.order_id = '$response.body#/order'),
    (d) => delete d.paths['/v1/orders/{order_id}'].patch.responses['200'].content['application/json'],
  ],
  'operation-id': [
    (d) => (d.paths['/v1/orders'].get.operationId = 'orders_list'),
    (d) => (d.paths['/v1/orders'].get.operationId = 'findOrders'),
    (d) => (d.paths['/v1/quotes'].post.operationId = 'getQuote'),
    (d) => (d.webhooks['order.paid'].post.operationId = 'orderPaid'),
  ],
};

const firstUnion = (d) => Object.entries(d.components.schemas).find(([name, s]) => name.startsWith('Problem4') && s.oneOf)[1];
const lint = (text, config) => redocly(text, `${folder}/gen/api/openapi.json`, config);
const rulesOf = (problems) => [...new Set(problems.map(({ ruleId }) => ruleId))];

test('every rule has a test', () => assert.deepEqual(Object.keys(breaks).sort(), [...names].sort()));

for (const [name, changes] of Object.entries(breaks)) {
  test(name, async () => {
    for (const change of changes) {
      const doc = JSON.parse(bundle);
      change(doc);
      assert.deepEqual(rulesOf(await lint(JSON.stringify(doc), only)), [`ordergate/${name}`], change.toString());
    }
  });
}

test('the bundle has no finding', async () => assert.deepEqual(rulesOf(await lint(bundle, ours)), []));

test("Redocly's own rules are on", async () => {
  const doc = JSON.parse(bundle);
  doc.paths['/v1/orders'].get.operationId = 'placeOrder';
  delete doc.components.securitySchemes.signature;
  assert.deepEqual(rulesOf(await lint(JSON.stringify(doc), ours)).sort(), ['operation-operationId-unique', 'ordergate/operation-id', 'security-defined']);
});

test('an example that breaks its schema is found', async () => {
  const at = (d) => ({ operation: d.paths['/v1/orders'].post, schemas: d.components.schemas });
  for (const [change, rule] of [
    [(d) => (at(d).operation.requestBody.content['application/json'].example.lines[0].quantity = 0), 'no-invalid-media-type-examples'],
    [(d) => (at(d).operation.responses['201'].content['application/json'].example.version = '5'), 'no-invalid-media-type-examples'],
    [(d) => delete d.webhooks['order.paid'].post.requestBody.content['application/json'].example.data.amount, 'no-invalid-media-type-examples'],
    [(d) => (d.components.parameters.Limit.example = 1000), 'no-invalid-parameter-examples'],
    [(d) => (d.components.schemas.OrderID.examples = ['ord_1']), 'no-invalid-schema-examples'],
  ]) {
    const doc = JSON.parse(bundle);
    change(doc);
    assert.deepEqual(rulesOf(await lint(JSON.stringify(doc), ours)), [rule], change.toString());
  }
  const doc = JSON.parse(bundle);
  doc.components.headers.Age.example = 'one';
  assert.deepEqual([...new Set((await spectral(JSON.stringify(doc))).map(({ code }) => code))], ['oas3-valid-media-example']);
});

test('a finding in the sources names their file', async () => {
  const root = JSON.parse(sources());
  root.paths['/v1/quotes'].$ref = 'paths/quotes.yaml#/~1v1~1quote';
  const problems = await redocly(JSON.stringify(root), `${folder}/openapi/openapi.yaml`, recommended);
  assert.deepEqual(rulesOf(problems), ['no-unresolved-refs']);
  assert.match(problems[0].location[0].source.absoluteRef, /openapi\.yaml$/);
});

test("Spectral's rules are on", async () => {
  const doc = JSON.parse(bundle);
  doc.paths['/v1/orders'].get.description = '';
  doc.components.schemas.Idle = { type: 'string' };
  const problems = await spectral(JSON.stringify(doc));
  assert.deepEqual([...new Set(problems.map(({ code }) => code))].sort(), ['oas3-unused-component', 'operation-description']);
});
