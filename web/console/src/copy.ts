// A recorded request as a user would write it.
import { shownKey, type Call } from './api.js';

const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

export function asCurl(call: Call): string {
  const key = shownKey();
  const parts = [`curl -i${call.stream ? 'N' : ''} ${call.method === 'GET' ? '' : `-X ${call.method} `}${quote(location.origin + call.path)}`];
  parts.push(key ? `-H ${quote(`Authorization: Bearer ${key}`)}` : '-H "Authorization: Bearer $ORDERGATE_KEY"');
  for (const [name, value] of Object.entries(call.headers)) {
    // A new key, so that the copy is a request of its own and not a repetition.
    parts.push(name === 'Idempotency-Key' ? `-H "Idempotency-Key: $(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')"` : `-H ${quote(`${name}: ${value}`)}`);
  }
  if (call.body) parts.push(`-d ${quote(call.body)}`);
  return parts.join(' \\\n  ');
}

type Write = (ids: string[], body: string | null, query: string | null) => string;

const args = (...given: (string | null)[]) => given.filter((arg) => arg !== null).join(', ');
const text = (id: string) => `'${id}'`;

// Method and path, with * for an id, to the method of the client.
const methods: Record<string, Write> = {
  'GET /v1/products': (_, __, query) => `og.products.list(${query ?? ''}).page()`,
  'GET /v1/products/*': ([sku]) => `og.products.get(${text(sku!)})`,
  'GET /v1/inventory/*': ([sku]) => `og.inventory.get(${text(sku!)})`,
  'POST /v1/inventory/*/adjustments': ([sku], body) => `og.inventory.adjust(${args(text(sku!), body)})`,
  'POST /v1/quotes': (_, body) => `og.orders.quote(${body ?? ''})`,
  'POST /v1/orders': (_, body) => `og.orders.place(${body ?? ''})`,
  'GET /v1/orders': (_, __, query) => `og.orders.list(${query ?? ''}).page()`,
  'GET /v1/orders/*': ([id], _, query) => `og.orders.get(${args(text(id!), query)})`,
  'GET /v1/orders/*/saga': ([id]) => `og.orders.saga(${text(id!)})`,
  'GET /v1/orders/*/payments': ([id]) => `og.orders.payments(${text(id!)}).page()`,
  'GET /v1/orders/*/shipments': ([id]) => `og.orders.shipments(${text(id!)}).page()`,
  'POST /v1/orders/*/cancel': ([id], body) => `og.orders.cancel(${args(text(id!), body)})`,
  'POST /v1/orders/*/payments': ([id], body) => `og.orders.pay(${args(text(id!), body)})`,
  'POST /v1/orders/*/shipments': ([id], body) => `og.orders.ship(${args(text(id!), body)})`,
  'POST /v1/payments/*/refunds': ([id], body) => `og.payments.refund(${args(text(id!), body)})`,
  'POST /v1/shipments/*/deliver': ([id]) => `og.shipments.deliver(${text(id!)})`,
  'GET /v1/errors/*': ([code]) => `og.errors.get(${text(code!)})`,
};

/** JSON as a TypeScript literal: names without quotes where they can be. */
function literal(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([name, v]) => `${/^[A-Za-z_]\w*$/.test(name) ? name : text(name)}: ${literal(v)}`);
    return entries.length ? `{ ${entries.join(', ')} }` : '{}';
  }
  return typeof value === 'string' ? `'${JSON.stringify(value).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'` : String(value);
}

export function asTypeScript(call: Call): string {
  const url = new URL(call.path, location.origin);
  const parts = url.pathname.split('/').map(decodeURIComponent);
  const ids = parts[3] === undefined ? [] : [parts[3]];
  const pattern = ids.length ? [...parts.slice(0, 3), '*', ...parts.slice(4)].join('/') : url.pathname;
  const query = [...url.searchParams].length
    ? literal(Object.fromEntries([...url.searchParams].map(([name, value]) => [name, /^(limit|version)$/.test(name) ? Number(value) : value])))
    : null;
  const body = call.body ? literal(JSON.parse(call.body)) : null;
  const key = shownKey();
  const head = `import { createOrdergate } from '@ordergate/client';\n\nconst og = createOrdergate({ baseUrl: '${location.origin}', apiKey: ${key ? text(key) : 'process.env.ORDERGATE_KEY!'} });\n`;
  if (call.stream) {
    const after = call.headers['Last-Event-ID'];
    return `${head}for await (const event of og.orders.watch(${args(text(ids[0]!), after ? `{ after: ${after} }` : null)})) console.log(event.sequence, event.type);`;
  }
  const write = methods[`${call.method} ${pattern}`];
  return head + (write ? `console.log(await ${write(ids, body, query)});` : `// ${call.method} ${call.path} has no method of its own.`);
}
