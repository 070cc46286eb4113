// Rules of ours for the contract: what generators, clients and the gateway are known to stumble over. Each has a test that breaks the contract.
// internal/bundle refuses by itself, and no rule here repeats it: what has no description or no component that refers to it, names and titles that
// are taken twice, additionalProperties: false, unknown scopes and codes, refusals by hand, open enumerations without meanings, links that lead nowhere.

const exact = Number.MAX_SAFE_INTEGER;
const types = (schema) => [schema.type ?? []].flat();
const isNull = (schema) => types(schema).join() === 'null';
const union = (schema) => schema.oneOf ?? schema.anyOf;

// every visits a schema and those below it, each once for one body: a visitor of Redocly that is nested sees the topmost alone.
function every(schema, location, { resolve }, visit, seen = new Set()) {
  if (schema.$ref) ({ node: schema, location } = resolve(schema));
  if (seen.has(schema)) return;
  seen.add(schema);
  visit(schema, location);
  const step = (child, ...at) => typeof child === 'object' && every(child, location.child(at), { resolve }, visit, seen);
  for (const [name, child] of Object.entries(schema.properties ?? {})) step(child, 'properties', name);
  for (const keyword of ['allOf', 'oneOf', 'anyOf']) (schema[keyword] ?? []).forEach((child, i) => step(child, keyword, i));
  for (const keyword of ['items', 'additionalProperties']) step(schema[keyword], keyword);
}

// bodies visits the schemas of a request or a response.
const bodies = ({ content = {} }, ctx, visit) => {
  for (const [type, { schema }] of Object.entries(content)) every(schema, ctx.location.child(['content', type, 'schema']), ctx, visit);
};

// These parameters are signed, or must be new each time: an example of them would be refused.
const signed = ['Idempotency-Key', 'X-Consistency-Token', 'cursor', 'Provider-Signature'];

// The headers of a response of an operation, by its kind.
function expectedHeaders(method, status, op, parameters) {
  const headers = ['X-Trace-ID'];
  const success = status < '300';
  const keyed = parameters.includes('Idempotency-Key');
  const secret = op.security?.some((requirement) => requirement.bearer);
  const json = Object.keys(op.responses['200']?.content ?? {}).join() !== 'text/event-stream';
  if (method === 'get' && (success || status === '304')) {
    if (json) headers.push('ETag');
    if (secret) headers.push('Cache-Control', 'X-Consistency-Token');
    if (secret && json) headers.push('X-Served-By', 'Age');
  }
  if (method !== 'get' && success && secret) headers.push('ETag', 'X-Consistency-Token');
  if (method !== 'get' && success && keyed) headers.push('Location', 'Idempotency-Replayed');
  if (success && parameters.includes('Prefer')) headers.push('Preference-Applied');
  if (status === '401') headers.push('WWW-Authenticate');
  if (status === '429' || status === '503') headers.push('Retry-After');
  return headers;
}

// Headers that come with some of the responses that list them.
const sometimes = ['Idempotency-Replayed', 'Preference-Applied'];

// Objects of answers of which properties may be left out: they say what changed.
const partial = ['OrderUpdatedData'];

const rules = {
  // oapi-codegen, openapi-typescript, ogen and openapi-generator lose a union without it, or write a schema's name instead of the code.
  'full-discriminator': () => ({
    Schema(schema, { report, location }) {
      const refs = (union(schema) ?? []).filter((part) => !isNull(part)).map((part) => part.$ref);
      if (refs.length < 2) return;
      const { propertyName, mapping = {} } = schema.discriminator ?? {};
      const mapped = Object.values(mapping);
      if (!propertyName || refs.length !== mapped.length || refs.some((ref) => !mapped.includes(ref))) {
        report({ message: 'A union needs a discriminator whose mapping has each of its schemas, once.', location });
      }
    },
  }),
  // oapi-codegen does not compile what it makes of one.
  'no-inline-union': () => ({
    MediaType(media, { report, location }) {
      if (media.schema && union(media.schema)) report({ message: 'A union stands under components/schemas, with a name.', location: location.child('schema') });
    },
  }),
  // It doubles the types of hey-api. Requests and answers have schemas of their own.
  'no-read-only': () => ({
    Schema(schema, { report, location }) {
      for (const keyword of ['readOnly', 'writeOnly']) if (keyword in schema) report({ message: `No ${keyword}: make two schemas.`, location: location.child(keyword) });
    },
  }),
  // `nullable` means nothing in 3.1.
  'null-is-a-type': () => ({
    Schema(schema, { report, location }) {
      if ('nullable' in schema) report({ message: "null is one of the types: type: [string, 'null'].", location: location.child('nullable') });
    },
  }),
  // Go's generators make interface{} of a const or enum without a type.
  'const-has-type': () => ({
    Schema(schema, { report, location, key }) {
      if (('const' in schema || 'enum' in schema) && !schema.type && key !== 'not') report({ message: 'const and enum need a type.', location });
    },
  }),
  // Beyond 2^53 - 1 JavaScript rounds. Without a format generators choose 32 bits, of a number float32.
  'exact-numbers': () => ({
    Schema(schema, { report, location }) {
      if (types(schema).includes('number') && schema.format !== 'double') report({ message: 'A number has format: double.', location });
      if (!types(schema).includes('integer')) return;
      const { format, minimum, maximum } = schema;
      if (!['int32', 'int64'].includes(format)) report({ message: 'An integer has format: int32 or int64.', location });
      if (format === 'int64' && !(minimum >= -exact && maximum <= exact)) report({ message: `An int64 has a minimum, and a maximum of at most ${exact}.`, location });
    },
  }),
  // kin-openapi's own pattern for it refuses UUIDv7.
  'no-uuid-format': () => ({
    Schema(schema, { report, location }) {
      if (schema.format === 'uuid') report({ message: 'No format: uuid; give its pattern.', location: location.child('format') });
    },
  }),
  // Readers must live with new values. An enumeration that is sent to us may be closed.
  'no-enum-in-answers': () => {
    const check = ({ report }) => (schema, location) => {
      if ('enum' in schema) report({ message: 'Enumerations of answers may grow: x-extensible-enum.', location: location.child('enum') });
    };
    return {
      Response: (response, ctx) => bodies(response, ctx, check(ctx)),
      Header: ({ schema }, ctx) => every(schema, ctx.location.child('schema'), ctx, check(ctx)),
    };
  },
  // A client need not ask whether a property is there.
  'always-present': () => ({
    Response(response, ctx) {
      bodies(response, ctx, (schema, location) => {
        if (partial.some((name) => location.pointer.endsWith(`/schemas/${name}`))) return;
        for (const name of Object.keys(schema.properties ?? {})) {
          if (!schema.required?.includes(name)) ctx.report({ message: `${name} is not required: properties of answers are always present, null if unknown.`, location });
        }
      });
    },
  }),
  // A misspelt property is refused (REQ_004). unevaluatedProperties, because typescript-fetch sends what additionalProperties: false refuses.
  'closed-requests': () => ({
    Operation: {
      RequestBody(body, ctx, { Operation: op }) {
        if (op.security?.length === 0 || op.security?.some((requirement) => requirement.signature)) return; // an event, or the provider's body
        bodies(body, ctx, (schema, location) => {
          if (types(schema).includes('object') && schema.unevaluatedProperties !== false && typeof schema.additionalProperties !== 'object') {
            ctx.report({ message: 'An object of a request has unevaluatedProperties: false.', location });
          }
        });
      },
    },
  }),
  // Nothing that is sent to us is boundless. Headers are: the gateway ignores what it does not understand of them, and 32 kB hold them all.
  'bounded-requests': () => {
    const check = ({ report }) => (schema, location) => {
      const has = (...keywords) => keywords.some((keyword) => keyword in schema);
      if (types(schema).includes('string') && !has('maxLength', 'pattern', 'enum', 'const')) report({ message: 'A string of a request has a maxLength or a pattern.', location });
      if (types(schema).includes('array') && !has('maxItems')) report({ message: 'An array of a request has maxItems.', location });
      if (types(schema).includes('integer') && !(has('minimum') && has('maximum'))) report({ message: 'An integer of a request has a minimum and a maximum.', location });
      if (typeof schema.additionalProperties === 'object' && !(has('propertyNames') && (has('maxProperties') || types(schema).includes('null')))) {
        report({ message: 'A map of a request has propertyNames and maxProperties; of a patch, which may remove, propertyNames.', location });
      }
    };
    return {
      Operation: { RequestBody: (body, ctx, { Operation: op }) => op.security?.length !== 0 && bodies(body, ctx, check(ctx)) },
      Parameter: (parameter, ctx) => parameter.in !== 'header' && every(parameter.schema, ctx.location.child('schema'), ctx, check(ctx)),
    };
  },
  // Every example that stands can be sent.
  'no-signed-example': () => {
    const check = (name, { example, examples, schema }, { report, location }) => {
      if (signed.includes(name) && [example, examples, schema?.example, schema?.examples].some((value) => value !== undefined)) {
        report({ message: `${name} is signed, or new each time: no example of it can be sent.`, location });
      }
    };
    return {
      Parameter: (parameter, ctx) => check(parameter.name, parameter, ctx),
      Header: (header, ctx) => check(String(ctx.key), header, ctx),
    };
  },
  // Readers, mocks and testers begin with an example. A parameter without one would be refused, or stands beside a parameter that it must not stand beside.
  'requests-have-examples': () => {
    const given = (schema) => ['example', 'examples', 'default', 'const', 'enum'].some((keyword) => keyword in schema);
    const check = ({ report }) => (schema, location) => {
      if (types(schema).some((type) => ['string', 'integer', 'number', 'boolean'].includes(type)) && !given(schema)) {
        report({ message: 'A value that can be sent has an example.', location });
      }
    };
    const properties = (visit) => (schema, location) => { if (!location.pointer.endsWith('/additionalProperties')) visit(schema, location); };
    return {
      Operation: { RequestBody: (body, ctx, { Operation: op }) => op.security?.length !== 0 && bodies(body, ctx, properties(check(ctx))) },
      Parameter(parameter, ctx) {
        if (parameter.example !== undefined || signed.includes(parameter.name) || parameter.name === 'as_of') return; // as_of and version: REQ_003
        const { node, location } = parameter.schema.$ref ? ctx.resolve(parameter.schema) : { node: parameter.schema, location: ctx.location };
        check(ctx)(node, location);
      },
    };
  },
  // A client may rely on a header that is always there, and knows which are not.
  'answer-headers': () => ({
    PathItem(item, { report, location, resolve }) {
      if (location.pointer.startsWith('#/webhooks/')) return; // your answers
      const deref = (node) => (node?.$ref ? resolve(node).node : node);
      for (const [method, op] of Object.entries(item).filter(([, op]) => op.responses)) {
        const parameters = [...(item.parameters ?? []), ...(op.parameters ?? [])].map((parameter) => deref(parameter).name);
        for (const [status, ref] of Object.entries(op.responses)) {
          const headers = deref(ref).headers ?? {};
          const at = location.child([method, 'responses', status]);
          for (const name of expectedHeaders(method, status, op, parameters)) {
            if (!headers[name]) report({ message: `${status} of ${op.operationId} has no ${name}.`, location: at });
            else if (!sometimes.includes(name) && !deref(headers[name]).required) report({ message: `${name} of ${status} is always there: required: true.`, location: at });
          }
          const full = Object.keys(deref(op.responses['200'])?.headers ?? {});
          if (status === '304' && full.join() !== Object.keys(headers).join()) report({ message: 'A 304 has the headers of the 200.', location: at });
        }
        if (op.responses['304'] ? !parameters.includes('If-None-Match') : parameters.includes('If-None-Match')) {
          report({ message: 'If-None-Match and 304 belong together.', location: location.child([method]) });
        }
      }
    },
  }),
  // One shape of lists, so that one pager reads them all.
  'lists-are-pages': () => ({
    PathItem(item, { report, location, resolve }) {
      const op = item.get;
      if (!op?.operationId?.startsWith('list') || op.security?.length === 0) return;
      const names = (op.parameters ?? []).map((parameter) => (parameter.$ref ? resolve(parameter).node : parameter).name);
      const schema = op.responses['200']?.content?.['application/json']?.schema;
      const page = Object.keys((schema?.$ref ? resolve(schema).node : schema)?.properties ?? {}).join();
      if (!names.includes('limit') || !names.includes('cursor') || page !== 'data,next_cursor') {
        report({ message: 'A list takes limit and cursor, and answers data and next_cursor.', location: location.child(['get']) });
      }
    },
  }),
  // A link that does not fit is worse than none: tools follow links blindly.
  'links-fit': () => ({
    Root(root, { report, location, resolve }) {
      const deref = (node) => (node?.$ref ? resolve(node).node : node);
      const operations = Object.entries(root.paths).flatMap(([path, item]) => Object.entries(item).filter(([, op]) => op.responses)
        .map(([method, op]) => ({ path, method, op, parameters: (op.parameters ?? []).map(deref) })));
      for (const { path, method, op } of operations) {
        for (const [status, ref] of Object.entries(op.responses)) {
          const response = deref(ref);
          const properties = deref(response.content?.['application/json']?.schema)?.properties ?? {};
          for (const [name, link] of Object.entries(response.links ?? {}).map(([name, link]) => [name, deref(link)])) {
            const fault = (message) => report({ message: `${name}: ${message}`, location: location.child(['paths', path, method, 'responses', status]) });
            const target = operations.find((other) => other.op.operationId === link.operationId);
            if (!target || link.operationId !== name) { fault('A link has the name of its operation.'); continue; }
            const given = Object.entries(link.parameters);
            for (const parameter of target.parameters.filter((p) => p.in === 'path')) if (!(parameter.name in link.parameters)) fault(`${parameter.name} is not given.`);
            for (const [parameter, expression] of given) {
              const [, property] = /^\$response\.body#\/(\w+)$/.exec(expression) ?? [];
              const [, header] = /^\$response\.header\.([\w-]+)$/.exec(expression) ?? [];
              if (!target.parameters.some((p) => p.name === parameter)) fault(`${link.operationId} has no ${parameter}.`);
              if (!(property in properties) && !(header in (response.headers ?? {}))) fault(`The answer has no ${expression}.`);
            }
          }
        }
      }
    },
  }),
  // Generators make the names of functions of it: a verb, then what it is about.
  'operation-id': () => ({
    PathItem(item, { report, location }) {
      for (const [method, op] of Object.entries(item).filter(([, op]) => op?.responses)) {
        const webhook = location.pointer.startsWith('#/webhooks/');
        const read = /^(get|list|stream)[A-Z]/.test(op.operationId ?? '');
        if (!/^[a-z]+([A-Z][a-z]+)*([A-Z]+)?$/.test(op.operationId ?? '') || (webhook ? !/^on[A-Z]/.test(op.operationId) : read !== (method === 'get'))) {
          report({ message: 'An operationId is a verb and what it is about, in camelCase: get, list or stream of a GET alone, on of a webhook.', location: location.child([method]) });
        }
      }
    },
  }),
};

export default { id: 'ordergate', rules: { oas3: rules } };
export const names = Object.keys(rules);
