// The page: its bar, its three panes, what is said about the connection, and the form for a key.
import { render } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import './style.css';
import { link } from './api.js';
import { Evidence } from './evidence.js';
import { OrderPane } from './order.js';
import { Mark, Refusal, time } from './parts.js';
import { Shop } from './shop.js';
import * as s from './state.js';

const dark = matchMedia('(prefers-color-scheme: dark)');
const chosen = signal(document.documentElement.dataset['theme'] ?? null);
const system = signal(dark.matches);
dark.addEventListener('change', () => { system.value = dark.matches; });
// Another tab chose.
addEventListener('storage', ({ key, newValue }) => {
  if (key !== 'theme' && key !== null) return;
  chosen.value = newValue;
  if (newValue) document.documentElement.dataset['theme'] = newValue;
  else delete document.documentElement.dataset['theme'];
});

function Theme() {
  const isDark = chosen.value ? chosen.value === 'dark' : system.value;
  const turn = () => {
    const to = isDark ? 'light' : 'dark';
    chosen.value = document.documentElement.dataset['theme'] = to;
    try {
      localStorage.setItem('theme', to);
    } catch {
      // Storage is switched off: the choice lasts for this page.
    }
  };
  return (
    <button type="button" class="square theme" role="switch" aria-checked={isDark} aria-label="Dark theme" title={isDark ? 'Light theme' : 'Dark theme'} onClick={turn}>
      <svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="6.25" fill="none" stroke="currentColor" stroke-width="1.5" /><path d="M8 1.75a6.25 6.25 0 0 1 0 12.5z" fill="currentColor" /></svg>
    </button>
  );
}

function Connection() {
  const { up } = link.value;
  const following = s.live.value && up;
  return (
    <p class="connection"><Mark of={up ? 'done' : 'failed'} size={12} />{!up ? 'Offline' : following ? 'Live' : 'Connected'}</p>
  );
}

// It lies over the lower edge, so that nothing moves.
function Offline() {
  const { up, since } = link.value;
  return (
    <div class="offline" role="status">
      {!up && <p><Mark of="failed" /><span><strong>The gateway does not answer.</strong> This page shows the state of {time(since)}. An order that was taken in goes on without this page; it is shown again as soon as there is a connection.</span></p>}
    </div>
  );
}

function KeyForm() {
  const [key, setKey] = useState('');
  const [trying, setTrying] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (!key.trim() || trying) return;
    setTrying(true);
    await s.tryKey(key.trim());
    setTrying(false);
  };
  return (
    <main class="ask">
      <form class="pane" onSubmit={submit} aria-labelledby="key-title">
        <h2 id="key-title">This page holds no key</h2>
        <p>Enter a test key of your account with all scopes. It stays in the memory of this page until you close or reload it, and goes nowhere but to {location.host}.</p>
        <label class="field"><span>API key</span><input type="password" autocomplete="off" spellcheck={false} placeholder="og_test_…" value={key} onInput={(e) => setKey(e.currentTarget.value)} /></label>
        <div class="notice">{s.keyProblem.value && <Refusal of={s.keyProblem.value} />}</div>
        <p><button type="submit" class="primary" aria-busy={trying}>Open the console</button></p>
      </form>
    </main>
  );
}

function App() {
  const asked = s.access.value === 'asked';
  const wasAsked = useRef(asked);
  // The form goes with the focus in it.
  useLayoutEffect(() => {
    if (wasAsked.current && !asked) document.querySelector<HTMLElement>('.search')?.focus();
    wasAsked.current = asked;
  }, [asked]);
  return (
    <>
      <header class="bar">
        {s.access.value === 'given' && <a class="skip" href="#outcomes" onClick={(e) => { e.preventDefault(); document.querySelector<HTMLElement>('.tile')?.focus(); }}>To the outcomes</a>}
        <div>
          <h1><svg width="20" height="20" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="7" fill="currentColor" /><path class="inner" d="M8 24V12a8 8 0 0 1 16 0v12" /><circle class="inner-fill" cx="16" cy="20" r="3.5" /></svg>Ordergate <span>console</span></h1>
          <Connection />
          <nav aria-label="Documentation"><a href="/docs">Docs</a><a href="/openapi.json">Contract</a></nav>
          <Theme />
          <p class="sr" role="status" aria-live="polite">{s.announcement.value}</p>
        </div>
      </header>
      {asked ? <KeyForm /> : <main class="panes"><Shop /><OrderPane /><Evidence /></main>}
      <footer class="foot"><a class="narrow" href="/openapi.json">Contract</a><a href="/console/licenses.txt">Licences</a></footer>
      <Offline />
    </>
  );
}

render(<App />, document.getElementById('app')!);
void s.start();
