// The examples of the README and of the sources, each as a program: with the names that its text speaks of, unless it imports them itself.
import { readdirSync, readFileSync } from 'node:fs';

const folder = new URL('../package/', import.meta.url);
const fences = (text) => [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code]) => code);

const IMPORTS = "import { createOrdergate, createTransport, errorCodes, isOrdergateError, money, Orders, type Config, type Errors, type Order } from '@ordergate/client';\n";
// The examples need no types of Node, so neither does what goes before them.
const ENV = '(globalThis as unknown as { process: { env: { ORDERGATE_URL: string; ORDERGATE_KEY: string } } }).process.env';
const OG = `const { ORDERGATE_URL: baseUrl, ORDERGATE_KEY: apiKey } = ${ENV};\nconst og = createOrdergate({ baseUrl, apiKey });\n`;
const USES = 'void [createTransport, errorCodes, isOrdergateError, money, Orders, og]; export type Used = [Config, Errors, Order];\n';

/** An example's own names go before those of the prelude: it stands in a block of its own. */
function program(code, prelude) {
  code = code.replace("'http://127.0.0.1:8080'", `${ENV}.ORDERGATE_URL`).replace("'og_test_demo_key_for_local_use_only'", `${ENV}.ORDERGATE_KEY`);
  if (/^import /m.test(code)) return code.includes('@ordergate/client') ? code + '\nexport {};\n' : IMPORTS + OG + USES + code;
  return `${IMPORTS}${OG}${prelude}${USES}{\n${code}}\n`;
}

/**
 * Those of the README. They are run, too: `order` is an order that waits to be paid. `says` is what their comments say that they print, but for
 * what differs from run to run.
 */
export function examples() {
  const order = `const order = await og.orders.place({ currency: 'EUR', customer_ref: 'customer-42', lines: [{ sku: 'LAMP-0001', quantity: 1 }] }, { waitSeconds: 10 });\nvoid order;\n`;
  const text = readFileSync(new URL('README.md', folder), 'utf8');
  return text.split(/^#+ /m).flatMap((section) => fences(section).map((code) => ({ title: section.slice(0, section.indexOf('\n')), code }))).map(({ title, code }, i) => ({
    name: `readme${i + 1}`,
    title,
    code: program(code, order),
    says: [...code.matchAll(/console\.log\(.*\); \/\/ ([^\s:;{]+(?: [^\s:;{]+)?|\{.*\})$/gm)].map(([, said]) => said).filter((said) => !said.includes('...')),
  }));
}

/** Those of the JSDoc, which are compiled only. */
export function sourceExamples() {
  const names = "declare const id: string;\nconst payment = await og.payments.get('pay_');\nconst order = await og.orders.get(id);\nvoid [payment, order];\n";
  return readdirSync(new URL('src/', folder)).flatMap((file) => {
    const text = readFileSync(new URL(`src/${file}`, folder), 'utf8').replace(/^ *\* ?/gm, '');
    return fences(text).map((code, i) => ({ name: `${file.replace('.ts', '')}${i + 1}`, code: program(code, names) }));
  });
}

/** The exported methods and functions of the sources whose JSDoc has no example. */
export function withoutExample() {
  return ['client.ts', 'money.ts', 'pager.ts'].flatMap((file) => {
    const text = readFileSync(new URL(`src/${file}`, folder), 'utf8');
    const declared = [...text.matchAll(/^(?:export (?:async )?function |  (?:async )?\*?)(\w+)(?:<[^>]*>)?\([^{]*?\)(?:: [^;{]+)?[;{ ]*$/gm)];
    let last = '';
    return declared.filter(({ 1: name, index, 0: line }) => {
      const again = name === last; // an overload: the first one has the text
      last = name;
      if (again || name === 'constructor' || /^  private/.test(line)) return false;
      return !/@example[^]*\*\/\n$/.test(text.slice(text.lastIndexOf('/**', index), index));
    }).map(({ 1: name }) => `${file}: ${name}`);
  });
}
