// The third pane: what proves it. Events with time travel, requests, consistency.
import { useEffect, useRef } from 'preact/hooks';
import { signal } from '@preact/signals';
import type { Order } from '@ordergate/client';
import { calls, held, TOKEN_LIFE, type Call } from './api.js';
import { asCurl, asTypeScript } from './copy.js';
import { Badge, Code, Copy, duration, Mark, money, Refusal, time, useRefuge } from './parts.js';
import * as s from './state.js';

const tabs = ['Events', 'Requests', 'Consistency'] as const;
type Tab = (typeof tabs)[number];
const tab = signal<Tab>('Events');

export function Evidence() {
  const list = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const at = tabs.indexOf(tab.value);
    const to = { ArrowRight: (at + 1) % 3, ArrowLeft: (at + 2) % 3, Home: 0, End: 2 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tab.value = tabs[to]!;
    list.current?.querySelectorAll('button')[to]?.focus();
  };
  return (
    <section class="pane evidence" aria-labelledby="evidence-title">
      <header>
        <h2 id="evidence-title" class="sr">Evidence</h2>
        <div class="tabs" role="tablist" aria-labelledby="evidence-title" ref={list} onKeyDown={move}>
          {tabs.map((t) => (
            <button key={t} type="button" role="tab" id={`tab-${t}`} aria-selected={tab.value === t} aria-controls="evidence-panel" tabIndex={tab.value === t ? 0 : -1} onClick={() => { tab.value = t; }}>{t}</button>
          ))}
        </div>
      </header>
      <div class="panel" role="tabpanel" id="evidence-panel" aria-labelledby={`tab-${tab.value}`}>
        {tab.value === 'Events' ? <Events /> : tab.value === 'Requests' ? <Requests /> : <Consistency />}
      </div>
    </section>
  );
}

/** The properties of a state by their path, in the order in which they tell most. */
function flat(order: Order | undefined): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string, value: unknown) => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      const entries = Object.entries(value);
      const amount = value as { amount?: number; currency?: string };
      if (entries.length === 2 && amount.currency !== undefined && amount.amount !== undefined) found.set(path, money(amount.amount, amount.currency));
      else if (entries.length === 0) found.set(path, '{}');
      else for (const [name, v] of entries) walk(path ? `${path}.${name}` : name, v);
    } else if (Array.isArray(value)) value.forEach((v, i) => walk(`${path}[${i}]`, v));
    else found.set(path, value === null ? 'null' : String(value));
  };
  if (order) {
    const { status, payment_status, fulfillment_status, version, rejection, cancel_requested_at, reservation_expires_at, updated_at, lines, metadata, ...rest } = order;
    walk('', { status, payment_status, fulfillment_status, version, rejection, cancel_requested_at, reservation_expires_at, updated_at, ...rest, lines, metadata });
  }
  return found;
}

function Events() {
  const id = s.orderId.value;
  const events = s.events.value;
  const last = events.at(-1)?.sequence ?? 0;
  const version = s.version.value;
  useEffect(() => void s.look(), [id, version]);
  const states = useRefuge<HTMLDivElement>();
  const timeline = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const row = timeline.current?.querySelector<HTMLElement>('[aria-current]');
    if (!row) return;
    const { offsetTop, offsetHeight } = row;
    const list = timeline.current!;
    list.scrollTop = Math.min(Math.max(list.scrollTop, offsetTop + offsetHeight - list.clientHeight), offsetTop);
  }, [version, last]);
  const event = events.find((e) => e.sequence === version);
  const choose = (v: number) => { s.selected.value = v >= last || last === 0 ? null : Math.max(1, v); };
  const now = flat(s.snapshots.value.get(version));
  const before = flat(s.snapshots.value.get(version - 1));
  const ready = now.size > 0 && (version === 1 || before.size > 0);
  const paths = [...new Set([...now.keys(), ...before.keys()])];
  const differs = (path: string) => version > 1 && now.get(path) !== before.get(path);
  const changes = ready ? paths.filter(differs).length : 0;
  return (
    <>
      <div class="travel">
        <label for="version">Version <strong class="number">{version || '–'}</strong> of <span class="number">{last || '–'}</span></label>
        <span class="ends">
          <button type="button" class="square" aria-label="The version before" aria-disabled={version <= 1} onClick={() => choose(version - 1)}>‹</button>
          <button type="button" class="square" aria-label="The version after" aria-disabled={version >= last} onClick={() => choose(version + 1)}>›</button>
        </span>
        <input id="version" type="range" min="1" max={Math.max(1, last)} value={version} aria-disabled={last < 2}
          aria-valuetext={event ? `Version ${version}, ${event.type}` : undefined} onInput={(e) => choose(Number(e.currentTarget.value))} />
      </div>
      <div class="scroll timeline" ref={timeline} tabIndex={0} role="region" aria-label="Timeline">
        {events.length === 0 ? <p class="empty">{id ? 'Its events appear here.' : 'No order is shown. Place one, and each of its events appears here as it happens.'}</p> : (
          <ol>
            {events.map((e) => (
              <li key={e.id} aria-current={e.sequence === version ? 'step' : undefined} class={e.sequence > version ? 'later' : ''}>
                <button type="button" data-sequence={e.sequence} onClick={() => choose(e.sequence)}>
                  <span class="number">{e.sequence}</span><code>{e.type}</code><span class="actor">{actor(e.cause.actor)}</span><time dateTime={e.created_at} class="number">{since(e.created_at, events[0]!.created_at)}</time>
                </button>
              </li>
            ))}
          </ol>
        )}
      </div>
      <div class="scroll states" ref={states} tabIndex={0} role="region" aria-label="The order at this version">
        {s.snapshotProblem.value && !ready ? <Refusal of={s.snapshotProblem.value}><button type="button" class="link" onClick={() => void s.look()}>Try again</button></Refusal> : events.length > 0 && (
          <table>
            <caption>{!ready ? 'Reading' : version === 1 ? 'The order as it was placed' : `${changes} ${changes === 1 ? 'property differs' : 'properties differ'} from version ${version - 1}`}</caption>
            <tbody>
              {ready && paths.map((path) => (
                <tr key={path} class={differs(path) ? 'differs' : ''}>
                  <th scope="row">{path}</th>
                  <td>{differs(path) && before.has(path) && <><del>{shorten(before.get(path)!)}</del> </>}{now.has(path) ? differs(path) ? <ins>{shorten(now.get(path)!)}</ins> : shorten(now.get(path)!) : <ins class="sr">gone</ins>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </div>
    </>
  );
}

const actor = (text: string) => (text.startsWith('key_') ? 'client' : text);
const since = (at: string, first: string) => `+${duration(Date.parse(at) - Date.parse(first))}`;
/** Times of day alone, and ids without their middle: the row stays one line. */
const shorten = (value: string) => (/^\d{4}-\d\d-\d\dT/.test(value) ? value.slice(11, 23) : value.length > 34 ? `${value.slice(0, 12)}…${value.slice(-8)}` : value);

const showBackground = signal(false);

function Requests() {
  const shown = calls.value.filter((c) => showBackground.value || !c.background);
  return (
    <>
      <div class="filter">
        <span><strong class="number">{shown.length}</strong> {shown.length === 1 ? 'request' : 'requests'}, the newest first</span>
        <label><input type="checkbox" checked={showBackground.value} onChange={(e) => { showBackground.value = e.currentTarget.checked; }} /> background reads</label>
      </div>
      <div class="scroll requests" tabIndex={0} role="region" aria-label="Requests">
        {shown.length === 0 ? <p class="empty">Each request of this page appears here.</p> : <ol>{shown.map((c) => <Request key={c.id} call={c} />)}</ol>}
      </div>
    </>
  );
}

const middle = (path: string) => path.replace(/([a-z]{3}_)[0-9a-f]{28}([0-9a-f]{4})/g, '$1…$2');

function Request({ call }: { call: Call }) {
  const what = `${call.method} ${middle(call.path)}`;
  const mark = call.ms === null ? 'running' : call.status === 0 || call.status >= 500 ? 'failed' : call.status >= 400 ? 'undone' : 'done';
  return (
    <li data-path={call.path} data-method={call.method}>
      <p>
        <code class="method">{call.method}</code>
        <code class="path" title={call.path}>{middle(decodeURI(call.path))}</code>
        <span class={`status ${mark}`}><Mark of={mark} size={12} />{call.ms === null ? '…' : call.status || 'lost'}</span>
        <span class="ms number">{call.ms === null ? '' : duration(call.ms)}</span>
      </p>
      <p>
        {call.servedBy ? <Badge by={call.servedBy} age={call.age ?? 0} /> : <span class="badge plain">{call.ms === null ? '…' : call.stream ? 'stream' : call.method === 'GET' || call.status === 0 || call.status >= 300 ? '–' : 'decided'}</span>}
        {call.code && <Code of={call.code} />}
        <span class="gap" />
        {call.traceId && <Copy text={() => call.traceId} what={`of ${what}`}><span class="word">trace </span>{call.traceId.slice(0, 8)}</Copy>}
        <Copy text={() => asCurl(call)} what={`of ${what}`}>curl</Copy>
        <Copy text={() => asTypeScript(call)} what={`of ${what}`}>TypeScript</Copy>
      </p>
    </li>
  );
}

const tiers = [
  ['lru', 'the memory of the process'], ['redis', 'the cache that all processes share'], ['replica', 'a copy of the database'], ['primary', 'where commands are decided'],
] as const;

interface Token { timeline: string; position: string; row: string; rev: string }
function parse(token: string): Token | null {
  const [, timeline, position, row, rev] = /^1\.([0-9a-f]{8})\.([0-9a-f]{16})\.(.*)-([0-9]{10})\.[A-Za-z0-9_-]+$/.exec(token) ?? [];
  return timeline ? { timeline: String(parseInt(timeline, 16)), position: position!, row: row!, rev: String(Number(rev)) } : null;
}
const lsn = (position: string) => `${parseInt(position.slice(0, 8), 16).toString(16).toUpperCase()}/${parseInt(position.slice(8), 16).toString(16).toUpperCase()}`;

function Consistency() {
  const token = held.value;
  const parsed = token && parse(token.token);
  const remains = token ? Math.max(0, TOKEN_LIFE - (s.now.value - token.at)) : 0;
  const id = s.orderId.value;
  const reads = calls.value.filter((c) => c.servedBy && c.status < 400);
  return (
    <div class="scroll consistency" tabIndex={0} role="region" aria-label="Consistency">
      <h3>The token that this page holds</h3>
      {token ? (
        <>
          <dl>
            <div><dt>Timeline</dt><dd class="number">{parsed?.timeline ?? '–'}</dd></div>
            <div><dt>Position</dt><dd><code>{parsed ? lsn(parsed.position) : '–'}</code></dd></div>
            <div><dt>Row, rev</dt><dd><code>{parsed?.row ? `${middle(parsed.row)}, ${parsed.rev}` : 'none'}</code></dd></div>
            <div><dt>Sent with reads</dt><dd class="number">{remains > 0 ? `for ${(remains / 1000).toFixed(0)} s more` : 'no more: 5 s are over'}</dd></div>
          </dl>
          <p class="trace"><Copy text={() => token.token} what="">the token</Copy></p>
        </>
      ) : <p class="empty">No answer has given one yet.</p>}
      <p class="now">It says what this page has seen. A tier answers if it has reached the position, or holds that row at that rev or later; else the next one is asked. Nothing older is ever shown.</p>
      <h3>Which tier could answer it</h3>
      <table>
        <thead><tr><th scope="col">Tier</th><th scope="col" class="number">Reads</th><th scope="col">Last position</th><th scope="col">The token</th></tr></thead>
        <tbody>
          {tiers.map(([tier, what]) => {
            const of = reads.filter((c) => c.servedBy === tier);
            const positions = of.map((c) => c.token && parse(c.token)).filter((t): t is Token => t !== null && t !== '');
            const best = positions.reduce<Token | null>((a, b) => (!a || b.position > a.position ? b : a), null);
            const could = tier === 'primary' || !parsed || of.some((c) => c.sentToken === token!.token) || (best !== null && (best.position >= parsed.position || positions.some((p) => p.row !== '' && p.row === parsed.row && Number(p.rev) >= Number(parsed.rev))));
            return (
              <tr key={tier}>
                <th scope="row"><code title={what}>{tier}</code></th>
                <td class="number">{of.length}</td>
                <td><code>{best ? lsn(best.position) : '–'}</code></td>
                <td class="could"><Mark of={could ? 'done' : 'waiting'} size={14} />{tier === 'primary' ? 'always had it' : of.length === 0 ? 'has not answered' : could ? 'at its last read: had it' : 'at its last read: not yet'}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <h3>Try it</h3>
      <p><button type="button" aria-disabled={!id} onClick={() => id && void s.readTwice(id)}>Read the order with the token, and without</button></p>
      <Reads id={id} />
    </div>
  );
}

function Reads({ id }: { id: string | null }) {
  const reads = calls.value.filter((c) => id && c.method === 'GET' && c.path === `/v1/orders/${id}` && c.servedBy).slice(0, 8);
  return (
    <table class="reads">
      <caption>{reads.length ? 'The last reads of this order' : id ? 'No read of this order yet.' : 'There is no order to read.'}</caption>
      <tbody>
        {reads.map((c) => (
          <tr key={c.id}>
            <td class="number">{time(c.at)}</td>
            <td>{c.sentToken ? 'with the token' : 'without'}</td>
            <td><Badge by={c.servedBy!} age={c.age ?? 0} /></td>
            <td class="number">{c.status}</td>
            <td class="number">{duration(c.ms ?? 0)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
