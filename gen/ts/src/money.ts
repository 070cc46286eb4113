// Amounts are whole numbers of minor units: 1999 EUR is 19.99 euros, 1999 JPY is 1999 yen, 1999 KWD is 1.999 dinars.
import type { Money } from './api/types.gen.js';

// The currencies of ISO 4217 whose minor unit is not a hundredth. Intl's own digits will not do: they follow how people write an amount, not
// the standard (none for the Iraqi dinar, which has three), and differ from engine to engine.
const NONE = 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF';
const THREE = 'BHD IQD JOD KWD LYD OMR TND';
const FOUR = 'CLF UYW';

/**
 * How many decimal places the currency has by ISO 4217.
 *
 * @example
 * ```ts
 * money.minorUnits('EUR'); // 2
 * money.minorUnits('JPY'); // 0
 * money.minorUnits('KWD'); // 3
 * ```
 */
export function minorUnits(currency: string): number {
  if (!/^[A-Z]{3}$/.test(currency)) throw new RangeError(`A currency has three capital letters; this is ${JSON.stringify(currency)}`);
  return NONE.includes(currency) ? 0 : THREE.includes(currency) ? 3 : FOUR.includes(currency) ? 4 : 2;
}

/**
 * The amount in the currency's main unit, as an exact decimal number in text.
 *
 * @example
 * ```ts
 * money.toMajor({ amount: 1999, currency: 'EUR' }); // '19.99'
 * money.toMajor({ amount: 1999, currency: 'JPY' }); // '1999'
 * ```
 */
export function toMajor({ amount, currency }: Money): string {
  const places = minorUnits(currency);
  if (!Number.isSafeInteger(amount)) throw new RangeError(`An amount is a whole number of minor units; this is ${amount}`);
  const digits = String(Math.abs(amount)).padStart(places + 1, '0');
  const at = digits.length - places;
  return (amount < 0 ? '-' : '') + digits.slice(0, at) + (places ? '.' : '') + digits.slice(at);
}

/**
 * The money of an amount in the currency's main unit, such as what a person typed. A number with more decimal places than the currency has is
 * refused with a RangeError: nothing is rounded.
 *
 * @example
 * ```ts
 * money.fromMajor('19.99', 'EUR'); // { amount: 1999, currency: 'EUR' }
 * money.fromMajor(5, 'KWD'); // { amount: 5000, currency: 'KWD' }
 * ```
 */
export function fromMajor(value: number | string, currency: string): Money {
  const places = minorUnits(currency);
  const [, sign, whole, decimals = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(String(value)) ?? [];
  const minor = decimals.replace(/0+$/, '').padEnd(places, '0');
  const amount = Number(sign! + whole! + minor);
  if (whole === undefined || minor.length > places || !Number.isSafeInteger(amount)) {
    throw new RangeError(`${JSON.stringify(value)} is no amount in ${currency}, which has ${places} decimal places`);
  }
  return { amount: amount || 0, currency }; // never -0
}

/**
 * The amount for people, by Intl: with the digits of the currency, in the language of `locale` or else of the environment.
 *
 * @example
 * ```ts
 * money.format(order.total, 'de-DE'); // '19,99 €'
 * money.format({ amount: 1999, currency: 'JPY' }, 'en', { currencyDisplay: 'code' }); // 'JPY 1,999'
 * ```
 */
export function format(value: Money, locale?: string | string[], options?: Intl.NumberFormatOptions): string {
  const digits = minorUnits(value.currency);
  const { minimumFractionDigits: least, maximumFractionDigits: most } = options ?? {};
  const places = { minimumFractionDigits: least ?? Math.min(digits, most ?? digits), maximumFractionDigits: most ?? Math.max(digits, least ?? digits) };
  // As text, which is exact beyond what a number holds.
  return new Intl.NumberFormat(locale, { style: 'currency', currency: value.currency, ...options, ...places }).format(toMajor(value) as unknown as number);
}
