// Markdown as our guides are written, to HTML that needs no inline style or script: highlighted code, Mermaid as SVG, codes as links.
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import go from 'highlight.js/lib/languages/go';
import http from 'highlight.js/lib/languages/http';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import python from 'highlight.js/lib/languages/python';
import typescript from 'highlight.js/lib/languages/typescript';
import yaml from 'highlight.js/lib/languages/yaml';
import { renderMermaidSVG } from 'beautiful-mermaid';
import { Marked } from 'marked';

for (const [name, language] of Object.entries({ bash, go, http, javascript, json, python, typescript, yaml })) hljs.registerLanguage(name, language);
const languages = { sh: 'bash', shell: 'bash', curl: 'bash', js: 'javascript', ts: 'typescript', mjs: 'typescript', py: 'python', yml: 'yaml' };

/** The address and the key that stand in our texts. The page's script puts those of the installation in their place. */
export const address = 'http://127.0.0.1:8080';
export const placeholder = 'og_test_your_key';
const demoKey = /og_test_demo_key_for_local_use_only|og_test_your_key/g;

export const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

/** The anchor that GitHub gives a heading. */
export const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').trim().replace(/\s/g, '-');

/** A block of code, with a button to copy it once the script runs. The parts that the installation knows are marked. */
export function code(text, language, label) {
  const name = languages[language] ?? language;
  const html = hljs.getLanguage(name) ? hljs.highlight(text, { language: name }).value : escape(text);
  const marked = html.replaceAll(address, `<span data-address>${address}</span>`).replace(demoKey, `<span data-key>${placeholder}</span>`);
  return `<div class="code"><pre tabindex="0"${label ? ` aria-label="${escape(label)}"` : ' aria-label="Code"'} role="group"><code>${marked.trimEnd()}</code></pre></div>\n`;
}

let pictures = 0;

/** Lets an edge that runs along the upper side of its node, to its middle, end where it meets that side: so its arrow points at the node. */
function enterFromAbove(svg) {
  const nodes = new Map([...svg.matchAll(/data-id="([^"]*)"[^>]*>\s*<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"/g)].map(([, id, ...box]) => [id, box.map(Number)]));
  return svg.replace(/data-to="([^"]*)"([^>]*?)points="([^"]*)"/g, (_, to, between, points) => {
    const [x, y, width] = nodes.get(to) ?? [];
    const all = points.split(' ').map((point) => point.split(',').map(Number));
    const meets = ([px, py]) => Math.abs(py - y) < 1 && px > x && px < x + width;
    while (all.length > 2 && meets(all.at(-1)) && meets(all.at(-2))) all.pop();
    return `data-to="${to}"${between}points="${all.join(' ')}"`;
  });
}

/** A Mermaid picture, drawn here. Its colours come from the page, its words are the alternative text. */
export function picture(source) {
  const id = `picture-${++pictures}`;
  const label = source.trim().split('\n').map((line) => line.trim()).join('; ');
  return `<figure class="picture" tabindex="0" role="group" aria-label="Picture">${enterFromAbove(renderMermaidSVG(source, { font: 'system-ui' }))
    .replace(/<style>[\s\S]*?<\/style>\s*/, '')
    .replace(/<svg ([^>]*?) style="[^"]*">/, (_, rest) => `<svg ${rest} role="img" aria-label="${escape(label)}">`)
    .replace(/ style="[^"]*"/g, '')
    .replace(/id="(arrowhead[^"]*|[\w-]*arrow[^"]*)"/g, `id="${id}-$1"`)
    .replace(/url\(#/g, `url(#${id}-`)}</figure>\n`;
}

/**
 * Turns Markdown into a page: title (its first heading), html without it, and sections [{id, title, level, text}]. link maps an
 * address of the text; isCode tells whether a word is an error code.
 */
export function render(markdown, { link = (href) => href, isCode = () => false } = {}) {
  const sections = [{ id: '', title: '', level: 1, text: '' }];
  const used = new Set();
  let title = '';
  let inLink = false; // where a code is no link of its own
  const marked = new Marked({
    gfm: true,
    renderer: {
      heading({ tokens, depth, text }) {
        const html = this.parser.parseInline(tokens);
        if (depth === 1 && !title) {
          title = plain(text);
          sections[0].title = title;
          return '';
        }
        let id = slug(text) || 'section';
        while (used.has(id)) id += '-2';
        used.add(id);
        sections.push({ id, title: plain(text), level: depth, text: '' });
        return `<h${depth} id="${id}">${html} <a class="anchor" href="#${id}" aria-label="Link to ${escape(plain(text))}">#</a></h${depth}>\n`;
      },
      code({ text, lang }) {
        return lang === 'mermaid' ? picture(text) : code(text, lang ?? '');
      },
      codespan({ text }) {
        return isCode(text) && !inLink ? `<a class="errorcode" href="/docs/errors/${text}"><code>${text}</code></a>` : `<code>${escape(text)}</code>`;
      },
      link({ href, tokens }) {
        inLink = true;
        const html = `<a href="${escape(link(href))}">${this.parser.parseInline(tokens)}</a>`;
        inLink = false;
        return html;
      },
      html({ text }) {
        return text.startsWith('<!--') ? '' : escape(text);
      },
      table({ header, rows }) {
        const row = (cells, tag) => `<tr>${cells.map((cell) => `<${tag}>${this.parser.parseInline(cell.tokens)}</${tag}>`).join('')}</tr>\n`;
        return `<div class="scroll" tabindex="0" role="group" aria-label="Table"><table><thead>${row(header, 'th')}</thead><tbody>${rows.map((cells) => row(cells, 'td')).join('')}</tbody></table></div>\n`;
      },
    },
  });
  const tokens = marked.lexer(markdown);
  const html = marked.parser(tokens);
  let at = -1;
  for (const token of tokens) { // the texts, for the search
    if (token.type === 'heading') at++;
    else if (token.type !== 'code' && token.raw) {
      if (sections[Math.max(at, 0)]) sections[Math.max(at, 0)].text += ` ${plain(token.raw)}`;
    }
  }
  return { title, html, sections };
}

/** The words of Markdown without its signs. */
export const plain = (text) => text.replace(/<!--[\s\S]*?-->/g, '').replace(/```[\s\S]*?```/g, '').replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/\|[\s:|-]*/g, ' ').replace(/[`*]/g, '').replace(/(\s|^)[-#]+\s/g, ' ').replace(/\s+/g, ' ').trim();

/** Markdown of one sentence or two, for texts of the registry. */
export const inline = (text, isCode = () => false) => escape(text).replace(/`([^`]+)`/g, (_, word) => (isCode(word) ? `<a class="errorcode" href="/docs/errors/${word}"><code>${word}</code></a>` : `<code>${word}</code>`));
