// Enumerations of answers may grow. A value that this package does not know becomes 'UNKNOWN', in the type and in the data.
import { answers, openEnums } from './tables.gen.js';

/** T, in which each enumeration has 'UNKNOWN' as a further value. */
export type Open<T> = unknown extends T
  ? T
  : T extends string
    ? string extends T
      ? T
      : T | 'UNKNOWN'
    : T extends number | boolean | null | undefined
      ? T
      : { [K in keyof T]: Open<T[K]> };

/** Replaces, in place, what the contract does not know in this operation's answer. */
export function openAnswer(operation: string, data: unknown): void {
  open(answers[operation] ?? '', data);
}

/** The same for a value of the schema of this name. */
export function open(schema: string, value: unknown): void {
  if (Array.isArray(value)) return value.forEach((item) => open(schema, item));
  if (typeof value !== 'object' || value === null) return;
  const object = value as Record<string, unknown>;
  for (const [property, rule] of Object.entries(openEnums[schema] ?? {})) {
    const found = object[property];
    if (typeof rule === 'string') open(rule, found);
    else object[property] = Array.isArray(found) ? found.map((item) => known(item, rule)) : known(found, rule);
  }
}

function known(value: unknown, values: string[]): unknown {
  return typeof value !== 'string' || values.includes(value) ? value : 'UNKNOWN';
}
