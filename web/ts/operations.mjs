// Writes operations.gen.ts, what the client needs at run time of the contract, and the types of its errors:
//   an operation  its method, its path, and what is known of its answer; a constant each, so that a bundler drops those that are not called
//   statuses      the status of each code: errors.gen.ts without its texts, which would be half of a small program
//   problems      code -> the open enumerations of its problem
//   Operations    operationId -> hey-api's types of its answers and refusals
// And it gives every optional property of hey-api's types the value undefined: `{ payment: undefined }` is `{}`, under exactOptionalPropertyTypes
// too.
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

const [input, folder] = process.argv.slice(2);
const { errorCodes } = await import(resolve(folder, 'errors.gen.ts'));
const typesFile = `${folder}/api/types.gen.ts`;
const source = readFileSync(typesFile, 'utf8').replace(/^( *[\w'-]+\?: )(?!never)(.*);$/gm, '$1$2 | undefined;');
writeFileSync(typesFile, source);
const types = source.match(/(?<=^export type )\w+/gm);
const contract = JSON.parse(readFileSync(input, 'utf8'));
const { schemas } = contract.components;
const named = (ref) => ref.slice(ref.lastIndexOf('/') + 1);

/** The properties of a schema and its parts: [name, property][]. A union of events has those of each event. */
function properties(schema) {
  const parts = [...(schema.oneOf ?? []), ...(schema.anyOf ?? []), ...(schema.allOf ?? [])];
  return [...(schema.$ref ? properties(schemas[named(schema.$ref)]) : []), ...Object.entries(schema.properties ?? {}), ...parts.flatMap(properties)];
}

/** The open enumerations in a schema: a list of values, an object of such, or undefined. */
function enums(schema, above = []) {
  if (schema.$ref) {
    if (above.includes(schema.$ref)) throw new Error(`${schema.$ref} holds itself`);
    return enums(schemas[named(schema.$ref)], [...above, schema.$ref]);
  }
  if (schema['x-extensible-enum']) return schema['x-extensible-enum'];
  if (schema.items) return enums(schema.items, above);
  const found = {};
  if (schema.discriminator?.propertyName === 'type') found.type = Object.keys(schema.discriminator.mapping);
  for (const [name, property] of properties(schema)) {
    if (name in found && !(name === 'data' && !Array.isArray(found.data))) continue;
    const more = enums(property, above);
    if (more) found[name] = name in found ? { ...found[name], ...more } : more;
  }
  if (Object.keys(found).length) return found;
  for (const part of [...(schema.oneOf ?? []), ...(schema.anyOf ?? []), ...(schema.allOf ?? [])]) {
    const values = enums(part, above);
    if (Array.isArray(values)) return values;
  }
}

/** A property that each document of the schema has. */
const required = (schema) => schema.$ref ? required(schemas[named(schema.$ref)]) : (schema.required ?? schema.allOf?.map(required).find(Boolean) ?? [])[0];

// hey-api's name of an operation's type: it writes abbreviations in its own way (GetOpenApijsonError).
function typeOf(operationId, kind) {
  const found = types.find((name) => name.toLowerCase() === `${operationId}${kind}`.toLowerCase());
  if (!found) throw new Error(`${operationId}: hey-api made no type ${kind} of it`);
  return `api.${found}`;
}

const operations = Object.entries(contract.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, ...operation })))
  .filter(({ operationId }) => operationId).sort((a, b) => (a.operationId < b.operationId ? -1 : 1));

const shared = new Map(); // a schema's text -> its constant: Order's is that of four operations
function constant(schema) {
  const name = schema.$ref ? named(schema.$ref) : undefined;
  const found = enums(schema);
  if (!found) return undefined;
  if (!name) throw new Error('an answer has a schema of its own');
  const list = name.endsWith('List') && schemas[name].properties?.data?.items?.$ref;
  const text = list ? `{ data: ${constant({ $ref: list })} }` : JSON.stringify(found);
  const as = name[0].toLowerCase() + name.slice(1);
  shared.set(as, text);
  return as;
}

const specs = operations.filter(({ security }) => !security?.some(({ signature }) => signature)) // the payment provider's: no client has its secret
  .map(({ operationId: id, method, path, security, responses }) => {
    const contents = Object.entries(responses).filter(([status]) => status < 300).flatMap(([, { content }]) => Object.entries(content ?? {}));
    const [type, { schema }] = contents[0];
    if (new Set(contents.map(([, { schema }]) => schema.$ref)).size > 1) throw new Error(`${id}: its answers have more than one schema`);
    const json = type === 'application/json';
    const of = id === 'streamOrder' ? { $ref: '#/components/schemas/Event' } : schema;
    const values = {
      id: `'${id}'`, method: method === 'get' ? undefined : `'${method.toUpperCase()}'`, path: `'${path}'`, open: security?.length ? undefined : 'true', type: json ? undefined : `'${type}'`,
      has: !json || required(schema) === 'id' ? undefined : `'${required(schema) ?? 'openapi'}'`, enums: of.type === 'string' ? undefined : constant(of),
    };
    return `export const ${id}: Spec<'${id}'> = { ${Object.entries(values).filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`).join(', ')} };\n`;
  });

const statuses = {};
for (const [code, { status }] of Object.entries(errorCodes)) {
  const [group, number] = code.split('_');
  const before = 3 * (Number(number) - 1);
  statuses[group] = (statuses[group] ?? '').padEnd(before, '0') + status;
  if (statuses[group].length !== before + 3) throw new Error(`${code} does not follow the one before it`);
}
const problems = Object.keys(errorCodes).map((code) => [code, schemas[`Problem${code}`] && enums(schemas[`Problem${code}`])]).filter(([, found]) => found);

writeFileSync(`${folder}/operations.gen.ts`, `// Code generated by web/ts/operations.mjs from gen/api/openapi.json, errors.gen.ts and api/types.gen.ts. DO NOT EDIT.
import type * as api from './api/types.gen.js';
import type { Enums } from './open.js';
import type { Spec } from './transport.js';

// The open enumerations of the answers, with the values that they had when this was generated.
${[...shared].map(([name, text]) => `const ${name}: Enums = ${text};\n`).join('')}
${specs.join('')}
/** REQ -> the statuses of REQ_001, REQ_002, ...; 000 where there is no such code. */
export const statuses: Record<string, string> = {
${Object.entries(statuses).map(([group, digits]) => `  ${group}: '${digits}',\n`).join('')}};

/** Code -> the open enumerations of its problem. */
export const problems: Record<string, Enums> = {
${problems.map(([code, found]) => `  ${code}: ${JSON.stringify(found)},\n`).join('')}};

/** operationId -> its answers by their status, and its refusals. */
export interface Operations {
${operations.map(({ operationId: id }) => `  ${id}: { answers: ${typeOf(id, 'Responses')}, refusals: ${typeOf(id, 'Error')} },\n`).join('')}}
`);
