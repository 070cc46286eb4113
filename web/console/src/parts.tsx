// The parts that all panes are made of.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { money as amounts } from '@ordergate/client';
import type { Mark as MarkName } from './rules.js';
import { announce, type Problem } from './state.js';

export const money = (amount: number, currency: string) => amounts.format({ amount, currency }, 'en');

/**
 * The minor units of an amount that was typed; NaN if it is none, or can be read in two ways. One point or comma begins the decimals. Before three
 * digits it may begin thousands: a comma is refused there, and a point unless the currency has three decimal places.
 */
export function minor(text: string, currency: string): number {
  const [, whole, separator, decimals = ''] = /^(\d+)(?:([.,])(\d+))?$/.exec(text.trim()) ?? [];
  const places = amounts.minorUnits(currency);
  if (whole === undefined || decimals.length > places || (decimals.length === 3 && (separator === ',' || places !== 3))) return NaN;
  const amount = Number(whole + decimals.padEnd(places, '0'));
  return Number.isSafeInteger(amount) ? amount : NaN;
}

/** For a button that sends: it keeps the focus while it is off, and takes a double click or a held key for one press. */
export const sends = (off: boolean, run: () => unknown) => ({
  'aria-disabled': off,
  onClick: (event: MouseEvent) => { if (!off && event.detail < 2) void run(); },
  onKeyDown: (event: KeyboardEvent) => { if (event.repeat && event.key === 'Enter') event.preventDefault(); },
});

/** A place whose elements come and go: if the one that has the focus goes, the next element around that can have it gets it. */
export function useRefuge<T extends HTMLElement>() {
  const place = useRef<T>(null);
  const had = place.current?.contains(document.activeElement);
  useLayoutEffect(() => {
    if (had && document.activeElement === document.body) place.current?.closest<HTMLElement>('[tabindex]')?.focus();
  });
  return place;
}

/** How long something took, in four characters or so. */
export function duration(ms: number): string {
  if (ms < 0) return '0 ms';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
export const time = (at: string | number) => clock.format(new Date(at));

/** The head and the tail of an id. */
export const short = (id: string) => (id.length > 16 ? `${id.slice(0, 4)}…${id.slice(-6)}` : id);

const shapes: Record<MarkName, ComponentChildren> = {
  waiting: <circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="1.5" />,
  running: <><circle class="ring" cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.5" /><circle cx="8" cy="8" r="3" fill="currentColor" /></>,
  done: <><circle cx="8" cy="8" r="7" fill="currentColor" /><path class="inner" d="m4.8 8.2 2.2 2.3 4.2-4.7" /></>,
  failed: <><circle cx="8" cy="8" r="7" fill="currentColor" /><path class="inner" d="m5.3 5.3 5.4 5.4m0-5.4-5.4 5.4" /></>,
  undone: <><circle cx="8" cy="8" r="7" fill="currentColor" /><path class="inner" d="M11.5 8H5m2.6-3L4.6 8l3 3" /></>,
};

/** A state by shape and colour; the word stands beside it. */
export function Mark({ of, size = 16 }: { of: MarkName; size?: number }) {
  return <svg class={`mark ${of}`} width={size} height={size} viewBox="0 0 16 16" aria-hidden="true">{shapes[of]}</svg>;
}

/** An error code, which leads to its page. */
export function Code({ of }: { of: string }) {
  return !/^[A-Z]+_[0-9]{3}$/.test(of) ? <code class="code">{of}</code> : <a class="code" href={`/docs/errors/${of}`} target="_blank" rel="noopener">{of}</a>;
}

export function Badge({ by, age }: { by: string; age: number }) {
  return <span class="badge" title={`Read from ${by}, ${age} s old then`}><span class="sr">Served by </span>{by} · {age} s</span>;
}

/** A button that copies, and says so. `what` ends its name for those who do not see where it stands. */
export function Copy({ text, children, what }: { text: () => string; children: ComponentChildren; what: string }) {
  const [copied, setCopied] = useState<boolean | null>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      done = false; // no https, or not allowed
    }
    setCopied(done);
    announce(done ? 'Copied.' : 'It cannot be copied here.');
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setCopied(null), 1500);
  };
  return (
    <button type="button" class="link copy" onClick={copy} data-state={copied === null ? undefined : copied ? 'copied' : 'failed'}>
      <span class="face"><CopyIcon /><span class="sr">Copy </span>{children}<span class="sr"> {what}</span></span>
      {copied !== null && <span class="told" aria-hidden="true">{copied ? 'copied' : 'not here'}</span>}
    </button>
  );
}

const CopyIcon = () => <svg width="11" height="12" viewBox="0 0 11 12" aria-hidden="true"><path d="M3.5 3V1.2h6.3v7.3H8M1.2 3.5h6.3v7.3H1.2z" fill="none" stroke="currentColor" stroke-width="1.2" stroke-linejoin="round" /></svg>;

/** A text of the registry, whose `names` are code. */
export function Prose({ children }: { children: string }) {
  return <>{children.split('`').map((part, i) => (i % 2 ? <code key={i}>{part}</code> : part))}</>;
}

/** A refusal: what happened, what to do, whom to ask. */
export function Refusal({ of, children }: { of: Problem; children?: ComponentChildren }) {
  return (
    <div class="refusal" role="alert">
      <p class="what"><Mark of="failed" /><Code of={of.code} /> <strong>{of.message}</strong></p>
      <p><Prose>{of.remedy}</Prose></p>
      <p class="trace">
        {of.traceId && <Copy text={() => of.traceId} what="id">trace <code>{of.traceId}</code></Copy>}
        {children}
      </p>
    </div>
  );
}

/** Keeps its element's class `changed` for as long as a change of `value` is to be seen. The first value is no change. */
export function useChanged(value: unknown): string {
  const before = useRef(value);
  const [changed, setChanged] = useState(false);
  useEffect(() => {
    const first = before.current === undefined;
    if (before.current === value) return undefined;
    before.current = value;
    if (first) return undefined;
    setChanged(true);
    const timer = setTimeout(() => setChanged(false), 900);
    return () => clearTimeout(timer);
  }, [value]);
  return changed ? ' changed' : '';
}
