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

/** The value, in which each value of an enumeration that is not among the known ones is replaced. Objects are changed in place. */
export function open(rule: Enums | readonly string[] | undefined, value: any): any {
  if (Array.isArray(value)) return value.map((item) => open(rule, item));
  if (Array.isArray(rule)) return typeof value !== 'string' || rule.includes(value) ? value : 'UNKNOWN';
  if (value && typeof value === 'object') {
    for (const [property, inner] of Object.entries(rule ?? {})) if (property in value) value[property] = open(inner, value[property]);
  }
  return value;
}
