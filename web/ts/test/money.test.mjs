import assert from 'node:assert/strict';
import { test } from 'node:test';
import { money } from '@ordergate/client';

const plain = (text) => text.replaceAll('\u00a0', ' ').replaceAll('\u202f', ' ');

test('money goes to main units and back without a loss', () => {
  for (const [amount, currency, text] of [
    [1999, 'EUR', '19.99'], [5, 'EUR', '0.05'], [0, 'EUR', '0.00'], [-5, 'EUR', '-0.05'], [100, 'USD', '1.00'], [1999, 'JPY', '1999'], [1, 'KRW', '1'],
    [1999, 'KWD', '1.999'], [5, 'BHD', '0.005'], [12345, 'CLF', '1.2345'], [1, 'IQD', '0.001'], [Number.MAX_SAFE_INTEGER, 'EUR', '90071992547409.91'],
  ]) {
    assert.equal(money.toMajor({ amount, currency }), text);
    assert.deepEqual(money.fromMajor(text, currency), { amount, currency });
  }
});

test('a number is what it looks like, not what its bits are', () => {
  for (const [value, currency, amount] of [[19.99, 'EUR', 1999], [0.1, 'EUR', 10], [1.1, 'EUR', 110], [8.2, 'KWD', 8200], [5, 'EUR', 500], [4.35, 'EUR', 435], [1.005, 'KWD', 1005], [-0, 'EUR', 0]]) {
    const { amount: got } = money.fromMajor(value, currency);
    assert.ok(Object.is(got, amount), `${value} ${currency}: ${got}`);
  }
  for (let cents = 0; cents < 100_000; cents++) assert.equal(money.fromMajor(cents / 100, 'EUR').amount, cents);
});

test('what would have to be rounded, and what is no number, is refused', () => {
  for (const [value, currency] of [
    ['19.999', 'EUR'], [0.1 + 0.2, 'EUR'], ['1.5', 'JPY'], ['', 'EUR'], ['1,50', 'EUR'], ['1e3', 'EUR'], [1e21, 'EUR'], [NaN, 'EUR'], [Infinity, 'EUR'], ['.5', 'EUR'], ['5.', 'EUR'],
    [' 5', 'EUR'], ['+5', 'EUR'], ['90071992547409.92', 'EUR'], ['5', 'eur'], ['5', 'EURO'], ['5', ''],
  ]) assert.throws(() => money.fromMajor(value, currency), RangeError, `${value} ${currency}`);
  assert.deepEqual(money.fromMajor('19.9900', 'EUR'), { amount: 1999, currency: 'EUR' }, 'noughts at the end say nothing');
  for (const amount of [1.5, NaN, 2 ** 53]) assert.throws(() => money.toMajor({ amount, currency: 'EUR' }), RangeError);
});

test('it is formatted in the language that is asked for, exactly', () => {
  assert.equal(plain(money.format({ amount: 123456, currency: 'EUR' }, 'de-DE')), '1.234,56 €');
  assert.equal(plain(money.format({ amount: 1999, currency: 'JPY' }, 'en')), '¥1,999');
  assert.equal(plain(money.format({ amount: 1999, currency: 'KWD' }, 'en')), 'KWD 1.999');
  assert.equal(plain(money.format({ amount: 1999, currency: 'IQD' }, 'en')), 'IQD 1.999', 'ISO 4217, not what people write');
  assert.equal(plain(money.format({ amount: Number.MAX_SAFE_INTEGER, currency: 'EUR' }, 'en')), '€90,071,992,547,409.91');
  assert.equal(plain(money.format({ amount: 150, currency: 'EUR' }, 'en', { currencyDisplay: 'code' })), 'EUR 1.50');
  assert.equal(plain(money.format({ amount: 150, currency: 'CNY' }, 'zh-CN')), '¥1.50');
  for (const [currency, options, text] of [
    ['EUR', { maximumFractionDigits: 0 }, '€2'], ['EUR', { maximumFractionDigits: 3 }, '€1.50'], ['EUR', { minimumFractionDigits: 4 }, '€1.5000'], ['EUR', { minimumFractionDigits: 0 }, '€1.5'],
    ['EUR', { minimumFractionDigits: 0, maximumFractionDigits: 1 }, '€1.5'], ['IQD', { minimumFractionDigits: 0 }, 'IQD 0.15'],
  ]) assert.equal(plain(money.format({ amount: 150, currency }, 'en', options)), text, JSON.stringify(options));
});

// ISO 4217's list and Intl's differ where people write no decimals although the standard has them. A currency that is new to Intl stands here until it was looked up.
test('the minor units are those of Intl, but for those that people write without', () => {
  const intl = (currency) => new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
  const differ = Intl.supportedValuesOf('currency').filter((currency) => money.minorUnits(currency) !== intl(currency));
  const written = new Set(differ.filter((currency) => intl(currency) === 0 && money.minorUnits(currency) > 0));
  assert.ok(written.has('IQD'));
  assert.deepEqual(differ.filter((currency) => !written.has(currency)), []);
});
