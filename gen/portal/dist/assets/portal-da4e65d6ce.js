// The portal's script: theme, menu, tabs, copy buttons, what the installation tells (config.json), and the search.
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // --- Theme: the system's, until the switch says otherwise ---
  const system = matchMedia('(prefers-color-scheme: dark)');
  const toggle = $('.theme');
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const showTheme = () => {
    toggle.setAttribute('aria-pressed', String(dark()));
    document.dispatchEvent(new CustomEvent('theme', { detail: { dark: dark() } }));
  };
  toggle.hidden = false;
  toggle.addEventListener('click', () => {
    const theme = dark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem('theme', theme);
    } catch { /* storage is switched off: the choice holds for this page */ }
    showTheme();
  });
  system.addEventListener('change', showTheme);
  window.portal = { dark };
  showTheme();

  // --- Menu of a narrow screen ---
  const menu = $('.menu');
  const side = $('.side');
  const openMenu = (open) => {
    menu.setAttribute('aria-expanded', String(open));
    side.classList.toggle('open', open);
  };
  menu.addEventListener('click', () => openMenu(!side.classList.contains('open')));
  side.addEventListener('click', (event) => event.target.closest('a') && openMenu(false));
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !side.classList.contains('open')) return;
    openMenu(false);
    menu.focus();
  });
  $('.side [aria-current]')?.scrollIntoView({ block: 'nearest' });

  // --- Tabs: the language that was chosen last ---
  for (const tabs of $$('[data-tabs]')) {
    const all = $$('[role=tab]', tabs);
    const choose = (tab, focus) => {
      for (const other of all) {
        const chosen = other === tab;
        other.setAttribute('aria-selected', String(chosen));
        other.tabIndex = chosen ? 0 : -1;
        $(`#${other.getAttribute('aria-controls')}`).hidden = !chosen;
      }
      if (!focus) return;
      tab.focus();
      try {
        localStorage.setItem('language', tab.id);
      } catch { /* not kept */ }
    };
    all.forEach((tab, i) => {
      tab.addEventListener('click', () => choose(tab, true));
      tab.addEventListener('keydown', (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(all[(to + all.length) % all.length], true);
      });
    });
    let last = '';
    try {
      last = localStorage.getItem('language') ?? '';
    } catch { /* none is kept */ }
    choose(all.find((tab) => tab.id === last) ?? all[0], false);
  }

  // --- Copy ---
  const said = make('div', { className: 'sr', role: 'status' });
  document.body.append(said);
  for (const block of $$('.code')) {
    const button = make('button', { type: 'button', className: 'copy', textContent: 'Copy' });
    button.addEventListener('click', async () => {
      const text = $('code', block).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = 'Copied';
        said.textContent = 'Copied';
      } catch { // not allowed at an address without TLS: the text is selected instead
        getSelection().selectAllChildren($('code', block));
        button.textContent = 'Selected';
        said.textContent = 'Selected';
      }
      setTimeout(() => {
        button.textContent = 'Copy';
        said.textContent = '';
      }, 2000);
    });
    block.append(button);
  }

  // A picture that is wider than the screen is shown by its middle.
  for (const picture of $$('.picture')) picture.scrollLeft = (picture.scrollWidth - picture.clientWidth) / 2;

  // --- The section that is read ---
  const beside = new Map($$('.contents a').map((a) => [a.getAttribute('href').slice(1), a]));
  if (beside.size) {
    const mark = () => {
      let current;
      for (const [id, a] of beside) if (document.getElementById(id)?.getBoundingClientRect().top < 120) current = a;
      for (const a of beside.values()) a === current ? a.setAttribute('aria-current', 'true') : a.removeAttribute('aria-current');
    };
    addEventListener('scroll', mark, { passive: true });
    mark();
  }

  // --- What this installation tells ---
  for (const element of $$('[data-address]')) element.textContent = location.origin;
  window.portal.config = fetch('/docs/config.json').then((response) => response.json()).catch(() => ({ api_key: '' }));
  window.portal.config.then(({ api_key: key, console: hasConsole }) => {
    if (key) {
      for (const element of $$('[data-key]')) element.textContent = key;
      for (const element of $$('[data-key-note]')) element.textContent = 'for trying; this installation alone accepts it';
    }
    if (hasConsole) {
      for (const element of $$('[data-console]')) element.hidden = false;
      for (const element of $$('[data-no-console]')) element.hidden = true;
    }
    document.documentElement.dataset.ready = 'true';
  });

  // --- Search: an index that the page fetches once, and no server ---
  const find = $('.find');
  find.hidden = false;
  const input = make('input', { type: 'search', placeholder: 'Guides, operations, codes', autocomplete: 'off', spellcheck: false });
  const list = make('ul', { id: 'found' });
  const none = make('p', { className: 'none', role: 'status', textContent: 'Try a code, a path, or a word: PAY_003, /v1/orders, retry.' });
  const close = make('button', { type: 'button', className: 'close', textContent: 'Esc' });
  close.setAttribute('aria-label', 'Close the search');
  for (const [name, value] of Object.entries({ role: 'combobox', 'aria-label': 'Search', 'aria-expanded': 'false', 'aria-controls': 'found', 'aria-autocomplete': 'list' })) input.setAttribute(name, value);
  list.setAttribute('role', 'listbox');
  list.setAttribute('aria-label', 'Found');
  list.hidden = true;
  const dialog = make('dialog', { className: 'search' }, make('div', { className: 'field' }, input, close), list, none);
  dialog.setAttribute('aria-label', 'Search');
  document.body.append(dialog);

  let index;
  const load = () => (index ??= fetch('/docs/search.json').then((response) => {
    if (!response.ok) throw new Error(`/docs/search.json is ${response.status}`);
    return response.json();
  }).catch((error) => {
    index = undefined; // the next key tries again
    throw error;
  }));
  const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  /**
   * How well an entry fits: all words must be in it. The code that was typed comes first, then those that have all words in the title; there
   * a whole word counts more than the beginning of one, and in the text the beginning more than the rest.
   */
  const score = (entry, query, asked) => {
    entry.words ??= { title: words(entry.title), all: `${entry.title} ${entry.text}`.toLowerCase() };
    let sum = entry.title.toLowerCase().includes(query) ? 20 : 0;
    let titled = true;
    for (const word of asked) {
      const inTitle = entry.words.title.includes(word) ? 12 : entry.words.title.some((w) => w.startsWith(word)) ? 8 : 0;
      titled &&= inTitle > 0;
      if (inTitle) sum += inTitle;
      else if (entry.words.all.includes(word)) sum += entry.words.all.includes(` ${word}`) ? 3 : 1;
      else return 0;
    }
    const exact = entry.kind === 'Code' && entry.title.toLowerCase().startsWith(`${query} `);
    return sum + (exact ? 2_000 : 0) + (titled ? 1_000 : 0);
  };
  const lit = (text, asked) => {
    const at = asked.map((word) => [text.toLowerCase().indexOf(word), word.length]).filter(([i]) => i >= 0).sort((a, b) => a[0] - b[0]);
    const parts = [];
    let end = 0;
    for (const [i, length] of at) {
      if (i < end) continue;
      parts.push(text.slice(end, i), make('mark', { textContent: text.slice(i, i + length) }));
      end = i + length;
    }
    return [...parts, text.slice(end)];
  };
  let selected = -1;
  const select = (to) => {
    const options = $$('[role=option]', list);
    selected = options.length ? (to + options.length) % options.length : -1;
    options.forEach((option, i) => option.setAttribute('aria-selected', String(i === selected)));
    if (selected < 0) return input.removeAttribute('aria-activedescendant');
    input.setAttribute('aria-activedescendant', options[selected].id);
    options[selected].scrollIntoView({ block: 'nearest' });
  };
  const show = async () => {
    const query = input.value.trim().toLowerCase();
    const asked = words(query);
    let failed = false;
    const entries = await load().catch(() => {
      failed = true;
      return [];
    });
    if (query !== input.value.trim().toLowerCase()) return;
    const found = asked.length ? entries.map((entry) => [score(entry, query, asked), entry]).filter(([points]) => points).sort((a, b) => b[0] - a[0]).slice(0, 20) : [];
    list.replaceChildren(...found.map(([, entry], i) => {
      const from = Math.max(0, entry.text.toLowerCase().indexOf(asked[0]) - 40);
      const option = make('li', { id: `found-${i}` }, make('span', {}, ...lit(entry.title, asked)), make('span', { className: 'kind', textContent: entry.kind }),
        make('small', {}, ...lit((from ? '… ' : '') + entry.text.slice(from, from + 160), asked)));
      option.setAttribute('role', 'option');
      option.dataset.url = entry.url;
      return option;
    }));
    list.hidden = !found.length;
    none.hidden = found.length > 0;
    none.textContent = failed ? 'The index of the search cannot be loaded. Type on to try again.' : asked.length ? `Nothing has “${input.value.trim()}”.` : 'Try a code, a path, or a word: PAY_003, /v1/orders, retry.';
    input.setAttribute('aria-expanded', String(found.length > 0));
    select(found.length ? 0 : -1);
  };
  const go = (option) => {
    if (!option) return;
    dialog.close();
    location.href = option.dataset.url;
  };
  const open = () => {
    if (dialog.open) return;
    dialog.showModal();
    input.select();
    show();
  };
  find.addEventListener('click', open);
  close.addEventListener('click', () => dialog.close());
  input.addEventListener('input', show);
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown') select(selected + 1);
    else if (event.key === 'ArrowUp') select(selected - 1);
    else if (event.key === 'Enter') go($$('[role=option]', list)[selected]);
    else if (event.key === 'Escape') dialog.close(); // a browser empties the field first
    else return;
    event.preventDefault();
  });
  list.addEventListener('click', (event) => go(event.target.closest('[role=option]')));
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
    if ((event.key === '/' && !typing && !event.metaKey && !event.ctrlKey) || (event.key?.toLowerCase() === 'k' && (event.metaKey || event.ctrlKey))) {
      event.preventDefault();
      event.stopPropagation();
      open();
    }
  }, true);
})();
