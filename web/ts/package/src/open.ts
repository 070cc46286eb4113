// Enumerations of answers may grow. A value that this package does not know becomes 'UNKNOWN', in the type and in the data.

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

/** The open enumerations of a schema: property -> the values that it had when this was generated, or the object in which to look further. */
export interface Enums {
  readonly [property: string]: readonly string[] | Enums;
}

/** Replaces, in place, the values that are not among the known ones. */
export function open(enums: Enums | undefined, value: unknown): void {
  if (Array.isArray(value)) return value.forEach((item) => open(enums, item));
  if (typeof value !== 'object' || value === null) return;
  const object = value as Record<string, unknown>;
  for (const [property, rule] of Object.entries(enums ?? {})) {
    const found = object[property];
    if (!Array.isArray(rule)) open(rule as Enums, found);
    else if (found) object[property] = Array.isArray(found) ? found.map((item) => known(item, rule)) : known(found, rule);
  }
}

function known(value: unknown, values: readonly string[]): unknown {
  return typeof value !== 'string' || values.includes(value) ? value : 'UNKNOWN';
}
