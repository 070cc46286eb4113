// Makes gen/portal, the pages of /docs, anew: equal input gives equal bytes. It reads the contract (gen/api), the registry of codes, the guides,
// what stands in this folder, and what it shares with the console (web/shared).
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { STATUS_CODES } from 'node:http';
import { dirname, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { address, code, escape, inline, placeholder, plain, render, slug } from './markdown.mjs';
import { clientArchive } from './archive.mjs';
import { licenses } from './licenses.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const out = here('../../gen/portal/');
const read = (name) => readFileSync(here(name), 'utf8');
const contract = JSON.parse(read('../../gen/api/openapi.json'));
const registry = parse(read('../../openapi/errors.yaml'));
const texts = parse(read('codes.yaml'));

rmSync(out, { recursive: true, force: true });
function write(name, content) {
  mkdirSync(dirname(out + name), { recursive: true });
  writeFileSync(out + name, content);
}

/** Puts a file below assets/, under a name that changes with its content, and returns its address. */
function asset(name, content) {
  const hash = createHash('sha256').update(content).digest('hex').slice(0, 10);
  const at = `assets/${name.slice(0, -extname(name).length)}-${hash}${extname(name)}`;
  write(`dist/${at}`, content);
  return `/docs/${at}`;
}

// --- What there is to tell ---

const operations = Object.entries(contract.paths).flatMap(([path, item]) => Object.entries(item)
  .filter(([, operation]) => operation.operationId)
  .map(([method, operation]) => ({ method: method.toUpperCase(), path, ...operation, tag: operation.tags[0], href: `/docs/reference#tag/${slug(operation.tags[0])}/${method.toUpperCase()}${path}` })));
const tags = contract.tags.map((tag) => ({ ...tag, operations: operations.filter((operation) => operation.tag === tag.name) }));

const families = { REQ: 'Requests', IDEM: 'Idempotency', AUTH: 'Authentication', RATE: 'Limits', CAT: 'Products', INV: 'Stock', ORD: 'Orders', PAY: 'Payments', RFD: 'Refunds', SHP: 'Shipments', CPN: 'Coupons', SYS: 'The service' };
const codes = Object.entries(registry.codes).filter(([, info]) => !info.reserved).map(([name, info]) => {
  const { remedy, zh } = texts[name] ?? {};
  if (!zh?.cause || !zh.remedy || (info.rejection && !zh.rejection)) throw new Error(`web/portal/codes.yaml: ${name} needs zh.cause, zh.remedy${info.rejection ? ', zh.rejection' : ''}`);
  const [cause, rest] = split(name, info.description, remedy);
  const [prefix] = name.split('_');
  if (!families[prefix]) throw new Error(`web/portal/build.mjs: families has no title for ${prefix}, the family of ${name}`);
  return { name, family: prefix, ...info, cause, remedy: rest, zh, operations: operations.filter((operation) => operation['x-error-codes'].includes(name)) };
}).sort((a, b) => (a.name < b.name ? -1 : 1));
for (const name of Object.keys(texts)) if (!codes.some((c) => c.name === name)) throw new Error(`web/portal/codes.yaml: openapi/errors.yaml has no ${name}`);
const isCode = (word) => codes.some((c) => c.name === word);

/** The cause and the remedy of a description: the remedy begins with the words that codes.yaml has. */
function split(name, description, words) {
  if (!words) return [description, ''];
  for (const start of words.split('|')) {
    const at = description.indexOf(start);
    if (at > 0) return [description.slice(0, at).trim(), description.slice(at).trim()];
    if (at === 0) return ['', description];
  }
  throw new Error(`web/portal/codes.yaml: the description of ${name} has no "${words}", with which its remedy would begin: ${description}`);
}

/** The problem that the contract shows for a code, of its first operation. */
function example(c) {
  const found = Object.values(contract.components.responses).map((r) => r.content?.['application/problem+json']?.examples?.[c.name]?.value).find(Boolean)
    ?? { type: `/docs/errors/${c.name}`, title: c.title, status: c.status, detail: c.description, instance: '/v1/orders', code: c.name, message: c.message.en, retryable: c.retryable ?? false, trace_id: 'checkout-7c9e6679', ...c.example };
  const operation = c.operations.find((o) => o.operationId === 'placeOrder') ?? c.operations[0];
  if (!operation) return { ...found, instance: '/v1/order' };
  const parameters = [...(operation.parameters ?? []), ...(contract.paths[operation.path].parameters ?? [])].map(resolve);
  return { ...found, instance: operation.path.replace(/\{(\w+)\}/g, (_, name) => {
    const p = parameters.find((parameter) => parameter.name === name);
    const value = p?.example ?? Object.values(p?.examples ?? {})[0]?.value ?? resolve(p?.schema)?.example ?? resolve(p?.schema)?.examples?.[0];
    if (value === undefined) throw new Error(`${operation.operationId}: the parameter ${name} has no example`);
    return value;
  }) };
}
const resolve = (node) => (node?.$ref ? resolve(node.$ref.split('/').slice(1).reduce((from, key) => from[key], contract)) : node);


const guideFiles = readdirSync(here('../../openapi/guides')).filter((name) => name.endsWith('.md')).sort();
const guideName = (file) => file.replace(/^\d+-/, '').replace(/\.md$/, '');
const lines = parse(read('guides.yaml'));
const guides = guideFiles.map((file) => ({
  file, name: guideName(file), line: lines[guideName(file)],
  ...render(read(`../../openapi/guides/${file}`), { isCode, link: (href) => href.replace(/^(?:\.\/)?([\w-]+)\.md(#.*)?$/, (_, to, hash) => `/docs/guides/${guideName(`${to}.md`)}${hash ?? ''}`) }),
}));
for (const g of guides) if (!g.line) throw new Error(`web/portal/guides.yaml has no line for ${g.name}`);
for (const name of Object.keys(lines)) if (!guides.some((g) => g.name === name)) throw new Error(`web/portal/guides.yaml: openapi/guides has no ${name}`);
const client = { ...render(read('../../gen/ts/README.md')), title: 'TypeScript client', line: 'One method per operation, typed errors, safe retries: an example per task.' };
const changelog = render(read('../../openapi/CHANGELOG.md'), { isCode });

// --- The frame of a page ---

const assets = {
  frame: asset('frame.css', read('../shared/tokens.css') + read('frame.css')),
  content: asset('content.css', read('content.css')),
  theme: asset('theme.js', read('../shared/public/theme.js')),
  script: asset('portal.js', read('script.js')),
  icon: asset('icon.svg', read('../shared/public/icon.svg')),
};

const sun = '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="M10 2.5v2M10 15.5v2M2.5 10h2M15.5 10h2M4.7 4.7l1.4 1.4M13.9 13.9l1.4 1.4M15.3 4.7l-1.4 1.4M6.1 13.9l-1.4 1.4" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/><circle cx="10" cy="10" r="3.2" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>';
const lens = '<svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true"><circle cx="8.5" cy="8.5" r="5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="m12.4 12.4 4.2 4.2" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/></svg>';
const bars = '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="M3 5.5h14M3 10h14M3 14.5h14" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/></svg>';

function navigation(current) {
  const item = (href, label) => `<li><a href="${href}"${href === current ? ' aria-current="page"' : ''}>${escape(label)}</a></li>`;
  const group = (title, items) => (items.length ? `<h2>${title}</h2><ul>${items.join('')}</ul>` : '');
  return group('Start', [item('/docs', 'First order'), item('/docs/client', 'TypeScript client'), '<li data-console hidden><a href="/console">Console</a></li>'])
    + group('Guides', guides.map((g) => item(`/docs/guides/${g.name}`, g.title)))
    + group('Reference', [item('/docs/reference', 'All operations'), ...tags.filter((t) => t.operations.length).map((t) => item(`/docs/reference#tag/${slug(t.name)}`, t.name))])
    + group('Errors', [item('/docs/errors', 'All codes')])
    + group('More', [item('/docs/changelog', 'Changes of the contract'), item('/openapi.json', 'openapi.json'), item('/openapi.yaml', 'openapi.yaml')]);
}

/** Writes a page. at: its address; main: its content; contents: the sections to list beside it; wide: its script draws the rest, with the landmarks main and header. */
function page(at, { title, description, main, contents = [], wide = false, scripts = [], body = '' }) {
  const top = (href, label) => `<a href="${href}"${at === href || (href !== '/docs' && at.startsWith(href)) ? ' aria-current="true"' : ''}>${label}</a>`;
  const beside = contents.length > 1
    ? `<aside class="contents"><nav aria-label="On this page"><h2>On this page</h2><ul>${contents.map((s) => `<li><a href="#${s.id}">${escape(s.title)}</a></li>`).join('')}</ul></nav></aside>` : '';
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="${escape(description)}">
<title>${escape(title)} · Ordergate</title>
<link rel="icon" href="${assets.icon}" type="image/svg+xml">
${[assets.frame, ...(wide ? [] : [assets.content])].map((href) => `<link rel="stylesheet" href="${href}">`).join('\n')}
<script src="${assets.theme}"></script>
${[assets.script, ...scripts].map((src) => `<script src="${src}" defer></script>`).join('\n')}
</head>
<body${body}>
<a class="skip" href="#main">Skip to the content</a>
<${wide ? 'section aria-label="Ordergate"' : 'header'} class="top"><div class="bar">
<button type="button" class="icon menu" aria-expanded="false" aria-controls="navigation" aria-label="Contents">${bars}</button>
<a class="brand" href="/docs"><img src="${assets.icon}" alt="" width="24" height="24">Ordergate</a>
<nav class="tops" aria-label="Parts">${top('/docs/guides', 'Guides')}${top('/docs/reference', 'Reference')}${top('/docs/errors', 'Errors')}<a href="/console" data-console hidden>Console</a></nav>
<button type="button" class="find" aria-haspopup="dialog" hidden>${lens}<span>Search</span><kbd>/</kbd></button>
<button type="button" class="icon theme" aria-label="Dark colours" aria-pressed="false" hidden>${sun}</button>
</div></${wide ? 'section' : 'header'}>
<div class="page${wide ? ' wide' : ''}">
<nav class="side" id="navigation" aria-label="Contents">${navigation(at)}</nav>
${wide ? `<div id="main" tabindex="-1">${main}</div>` : `<main id="main" tabindex="-1">\n${main}\n</main>`}
${beside}
</div>
<footer class="foot"><a href="/docs/licenses.txt">Licences of the reference's parts</a></footer>
</body>
</html>
`;
  if (/<a\b[^>]*>(?:(?!<\/a>)[\s\S])*?<a\b/.test(html)) throw new Error(`${at} has a link in a link`);
  write(`dist${at === '/docs' ? '/index' : at.slice('/docs'.length)}.html`, html);
}

const method = (m) => `<span class="method ${m.toLowerCase()}">${m}</span>`;
const operationLink = (o) => `<a class="operation" href="${o.href}">${method(o.method)}<code>${escape(o.path).replaceAll('/', '/<wbr>')}</code><span>${escape(o.summary)}</span></a>`;

// --- First page ---

const samples = [
  { id: 'curl', label: 'curl', file: 'curl.sh', language: 'bash' },
  { id: 'typescript', label: 'TypeScript', file: 'first.mjs', language: 'typescript', before: `npm install ${address}/docs/client.tgz`, run: 'node first.mjs', note: 'Node 20 or later. <a href="/docs/client">The client</a> has types, retries where repeating is safe, and one typed error for every refusal.' },
  { id: 'python', label: 'Python', file: 'first.py', language: 'python', run: 'python3 first.py', note: 'Python 3, its standard library alone.' },
  { id: 'go', label: 'Go', file: 'first.go.txt', name: 'first.go', language: 'go', run: 'go run first.go', note: 'Go 1.24 or later, its standard library alone.' },
];
write('dist/client.tgz', clientArchive(here('../../gen/ts')));

const block = (sample) => [
  sample.before && code(sample.before, 'bash', 'To install the client'),
  sample.run && `<p class="file"><code>${sample.name ?? sample.file}</code></p>`,
  code(read(`samples/${sample.file}`), sample.language, `A first order by ${sample.label}`),
  sample.run && code(sample.run, 'bash', 'To run it'),
  sample.note && `<p class="note">${sample.note}</p>`,
].filter(Boolean).join('');

const card = (href, title, line) => `<li><a href="${href}"><strong>${escape(title)}</strong><span>${escape(line)}</span></a></li>`;
const cards = `<ul class="cards">${guides.map((g) => card(`/docs/guides/${g.name}`, g.title, g.line)).join('')}${card('/docs/client', client.title, client.line)}</ul>`;

page('/docs', {
  title: 'First order', description: contract.info.summary,
  contents: [],
  main: `<div class="hero">
<h1>${escape(contract.info.summary)}</h1>
<p class="lead">Ordergate is an HTTP API that takes an order, holds its stock, captures its payment and follows it until it has arrived.
Repeating a request is safe, every read can be as new as your last write, and every refusal has a code that says what to do.</p>
</div>
<dl class="facts">
<div><dt>Address</dt><dd><code data-address>${address}</code></dd></div>
<div><dt>API key</dt><dd><code data-key>${placeholder}</code> <span class="muted" data-key-note>the operator gives you one (<code>ordergate keys create</code>)</span></dd></div>
<div><dt>Contract</dt><dd><a href="/openapi.json">OpenAPI ${escape(contract.openapi)}</a>, version ${escape(contract.info.version)}</dd></div>
</dl>
<section aria-labelledby="first-order">
<h2 id="first-order">A first order</h2>
<p>It pays with the test token <code>pm_ok</code> and waits until it is decided: a second later it is confirmed.</p>
<div class="tabs" data-tabs>
<div role="tablist" aria-label="Language">${samples.map((s, i) => `<button type="button" role="tab" id="tab-${s.id}" aria-controls="panel-${s.id}" aria-selected="${i === 0}"${i ? ' tabindex="-1"' : ''}>${s.label}</button>`).join('')}</div>
${samples.map((s) => `<div role="tabpanel" id="panel-${s.id}" aria-labelledby="tab-${s.id}" data-sample="${s.id}">${block(s)}</div>`).join('\n')}
</div>
<p>Next: <a href="/docs/reference">read it, cancel it, refund it</a>, or <a href="/console" data-console hidden>watch it in the console</a><span data-no-console>look at <a href="/docs/errors">what can be refused</a></span>.</p>
</section>
<section aria-labelledby="guides"><h2 id="guides">Guides</h2>${cards}</section>
<section aria-labelledby="operations"><h2 id="operations">Operations</h2>
${tags.filter((t) => t.operations.length).map((t) => `<h3>${escape(t.name)}</h3><p class="muted">${inline(firstSentence(t.description.trim()))}</p><ul class="operations">${t.operations.map((o) => `<li>${operationLink(o)}</li>`).join('')}</ul>`).join('\n')}
</section>`,
});

function firstSentence(text) {
  const sentence = /^.*?[.:!?](?=\s|$)/s.exec(text)?.[0] ?? text;
  return sentence.replace(/:$/, '.').replace(/\s+/g, ' ');
}

// --- Guides ---

guides.forEach((g, i) => {
  const beside = (guide, rel, label) => (guide ? `<a rel="${rel}" href="/docs/guides/${guide.name}"><span>${label}</span>${escape(guide.title)}</a>` : '<span></span>');
  page(`/docs/guides/${g.name}`, {
    title: g.title, description: g.line, contents: g.sections.filter((s) => s.level === 2),
    main: `<article><h1>${escape(g.title)}</h1>\n${g.html}</article>\n<nav class="next" aria-label="Other guides">${beside(guides[i - 1], 'prev', 'Before')}${beside(guides[i + 1], 'next', 'Next')}</nav>`,
  });
});

page('/docs/guides', {
  title: 'Guides', description: 'All guides, and what each is for.',
  main: `<h1>Guides</h1>\n<p>The <a href="/docs">first order</a> comes before them, the <a href="/docs/reference">reference</a> has all operations.</p>\n${cards}`,
});

page('/docs/client', {
  title: client.title, description: client.line, contents: client.sections.filter((s) => s.level > 1),
  main: `<article><h1>${client.title}</h1>\n${code(`npm install ${address}/docs/client.tgz`, 'bash', 'To install the client')}${client.html}</article>`,
});

page('/docs/changelog', {
  title: 'Changes of the contract', description: 'What each version of the contract changed.', contents: changelog.sections.filter((s) => s.level === 2),
  main: `<article><h1>${escape(changelog.title || 'Changes of the contract')}</h1>\n${changelog.html}</article>`,
});

// --- Errors ---

const byFamily = Object.entries(families).map(([family, title]) => ({ id: family.toLowerCase(), title, codes: codes.filter((c) => c.family === family) })).filter((f) => f.codes.length);
page('/docs/errors', {
  title: 'Error codes', description: 'All codes, each with its cause and its remedy.', contents: byFamily,
  main: `<h1>Error codes</h1>
<p>Every refusal is one body, <code>application/problem+json</code>, with one of these ${codes.length} codes. Its <code>type</code> is the address of the code's page.
Decide by <code>code</code>, never by the texts. The <a href="/docs/guides/errors">guide to errors</a> says which to repeat, and how.</p>
${byFamily.map((f) => `<h2 id="${f.id}">${f.title}</h2>
<ul class="codes">${f.codes.map((c) => `<li><a href="/docs/errors/${c.name}"><code>${c.name}</code><span class="status">${c.status}</span><span>${escape(c.title)}</span><span lang="zh-CN" class="muted">${escape(c.message['zh-CN'])}</span></a></li>`).join('')}</ul>`).join('\n')}`,
});

codes.forEach((c, i) => {
  const problem = example(c);
  const language = (lang, name, t) => `<section lang="${lang}" aria-label="${name}"><p class="message">${escape(t.message)}</p>${t.note ? `<p class="note">${t.note}</p>` : ''}
${t.cause ? `<h2>${t.words[0]}</h2><p>${inline(t.cause, isCode)}</p>` : ''}
${t.remedy ? `<h2>${t.words[1]}</h2><p>${inline(t.remedy, isCode)}</p>` : ''}
${t.rejection ? `<h2>${t.words[2]}</h2><p>${inline(t.rejection, isCode)}</p>` : ''}</section>`;
  const byTag = tags.map((t) => [t.name, c.operations.filter((o) => o.tag === t.name)]).filter(([, list]) => list.length);
  const everywhere = c.operations.length === operations.length ? 'Every operation can answer it.' : c.operations.length ? '' : 'No operation answers it: it is the answer to addresses and methods that the contract does not have.';
  const list = byTag.map(([tag, list]) => `<h3>${escape(tag)}</h3><ul class="operations">${list.map((o) => `<li>${operationLink(o)}</li>`).join('')}</ul>`).join('');
  const retryAfter = c.name === 'IDEM_003' || Object.values(contract.components.responses).some((r) => r.content?.['application/problem+json']?.examples?.[c.name] && r.headers?.['Retry-After']?.$ref?.endsWith('/RetryAfter'));
  const before = codes[i - 1]; const after = codes[i + 1];
  page(`/docs/errors/${c.name}`, {
    title: `${c.name} ${c.title}`, description: c.description,
    main: `<p class="crumbs"><a href="/docs/errors">Error codes</a> / ${families[c.family]}</p>
<h1><code>${c.name}</code> ${escape(c.title)}</h1>
<p class="marks"><span class="state">HTTP ${c.status} ${STATUS_CODES[c.status]}</span>${c.retryable ? '<span class="state retry">retryable</span>' : '<span class="state final">not retryable</span>'}${c.rejection ? '<span class="state">also a rejection</span>' : ''}</p>
<div class="languages">
${language('en', 'English', { message: c.message.en, note: `HTTP ${c.status}, ${c.retryable ? 'retryable: the same request with the same key, later' : 'not retryable'}${c.rejection ? '; also the rejection of an order' : ''}`, cause: c.cause, remedy: c.remedy, rejection: c.rejection?.description, words: ['Cause', 'Remedy', 'As the rejection of an order'] })}
${language('zh-CN', '中文', { message: c.message['zh-CN'], ...c.zh, note: `HTTP ${c.status}，${c.retryable ? '可重试：稍后用同一个键发送同一请求' : '不可重试'}${c.rejection ? '；也可能是订单的拒绝原因' : ''}`, words: ['原因', '处理方法', '作为订单的拒绝原因'] })}
</div>
<section aria-labelledby="example"><h2 id="example">An answer</h2>
${code(`HTTP/1.1 ${c.status} ${STATUS_CODES[c.status]}\nContent-Type: application/problem+json\n${retryAfter ? 'Retry-After: 1\n' : ''}\n${JSON.stringify(problem, null, 2)}`, 'http', 'An answer with this code')}
<p class="note">With <code>Accept-Language: zh-CN</code> its <code>message</code> is <span lang="zh-CN">${escape(c.message['zh-CN'])}</span>. For programs: <a href="/v1/errors/${c.name}"><code>GET /v1/errors/${c.name}</code></a>.</p></section>
<section aria-labelledby="answered"><h2 id="answered">Answered by</h2>
${everywhere ? `<p>${everywhere}</p>` : ''}${c.operations.length > 8 ? `<details><summary>${c.operations.length} operations</summary>${list}</details>` : list}</section>
<nav class="next" aria-label="Other codes">${before ? `<a rel="prev" href="/docs/errors/${before.name}"><span>${before.name}</span>${escape(before.title)}</a>` : '<span></span>'}${after ? `<a rel="next" href="/docs/errors/${after.name}"><span>${after.name}</span>${escape(after.title)}</a>` : ''}</nav>`,
  });
});

// --- Reference ---

page('/docs/reference', {
  title: 'Reference', description: 'All operations, to read and to try.', wide: true, body: ' class="reference"',
  scripts: [asset('scalar.js', read('node_modules/@scalar/api-reference/dist/browser/standalone.js')), asset('reference.js', read('reference.js'))],
  main: '<div id="reference"></div><noscript><p>The reference needs JavaScript. The same contract is at <a href="/openapi.json">openapi.json</a>.</p></noscript>',
});
write('dist/licenses.txt', licenses(import.meta.dirname));

// Also of what is below /console and is not there.
page('/docs/404', {
  title: 'No such page', description: 'There is no such page.',
  main: `<h1>There is no such page</h1>
<p>Nothing stands at this address. Search for a guide, an operation or a code, or go on from here:</p>
<ul class="cards">${card('/docs', 'First order', 'The address, the key, and an order in four languages.')}${card('/docs/guides', 'Guides', 'How to work with the API.')}${card('/docs/reference', 'Reference', 'All operations, to read and to try.')}${card('/docs/errors', 'Error codes', 'All codes, each with its cause and its remedy.')}</ul>`,
});

// --- Search ---

const entries = [
  ...[...guides.map((g) => ({ ...g, kind: 'Guide', at: `/docs/guides/${g.name}` })), { ...client, kind: 'Client', at: '/docs/client' }]
    .flatMap((g) => g.sections.map((s) => ({ kind: g.kind, title: s.level === 1 ? g.title : `${g.title}: ${s.title}`, url: `${g.at}${s.id && `#${s.id}`}`, text: s.text.trim() }))),
  ...operations.map((o) => ({ kind: 'Operation', title: o.summary, url: o.href, text: `${o.method} ${o.path} ${o.operationId} ${o.tag} ${firstSentence(o.description ?? '')}` })),
  ...Object.entries(contract.webhooks ?? {}).map(([name, { post }]) => ({ kind: 'Event', title: name, url: `/docs/reference#tag/${slug(post.tags?.[0] ?? 'webhooks')}/webhook/POST/${name.replaceAll('_', '-')}`, text: `${post.summary} ${firstSentence(post.description ?? '')}` })),
  ...codes.map((c) => ({ kind: 'Code', title: `${c.name} ${c.title}`, url: `/docs/errors/${c.name}`, text: `${c.status} ${c.message.en} ${c.message['zh-CN']} ${c.description} ${c.zh.cause}` })),
];
for (const entry of entries) entry.text = plain(entry.text);
write('dist/search.json', `${JSON.stringify(entries)}\n`);

write('portal.gen.go', `// Code generated by web/portal/build.mjs. DO NOT EDIT.

// Package portal has the built pages of /docs.
package portal

import "embed"

// Files are the pages, below dist.
//
//go:embed all:dist
var Files embed.FS
`);
