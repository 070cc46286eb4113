// The two clients of the page, and a record of each request that they send.
import { signal } from '@preact/signals';
import { createOrdergate, type Ordergate } from '@ordergate/client';

export interface Call {
  id: number;
  at: number;
  method: string;
  /** Path and query. */
  path: string;
  /** 0: nothing answered. */
  status: number;
  /** Until the headers were there; null: it is still open. */
  ms: number | null;
  servedBy: string | null;
  age: number | null;
  traceId: string;
  code: string | null;
  /** The page asked for it by itself, such as for the stock of the products that are shown. */
  background: boolean;
  stream: boolean;
  /** The headers that were sent beside the key, for curl. */
  headers: Record<string, string>;
  body: string | null;
  sentToken: string | null;
  token: string | null;
}

/** How many requests are kept. */
const KEPT = 200;
export const calls = signal<Call[]>([]);

/** The greatest consistency token that was seen, and when: the client sends it for 5 s. */
export const held = signal<{ token: string; at: number } | null>(null);
export const TOKEN_LIFE = 5000;

/** Whether the last request that ended had an answer; `since` is when the first one had none. */
export const link = signal<{ up: boolean; since: number }>({ up: navigator.onLine, since: Date.now() });

function setLink(up: boolean): void {
  if (link.value.up !== up) link.value = { up, since: Date.now() };
}
addEventListener('offline', () => setLink(false));

/** The API key: given by `ordergate run`, or typed in. It is kept in memory alone. */
let key = '';
/** The key of `ordergate run` stands in its terminal and in the README; copied requests may show it. Another one they never show. */
let keyIsPublic = false;
export function useKey(text: string, isPublic: boolean): void {
  key = text;
  keyIsPublic = isPublic;
}
export const shownKey = () => (keyIsPublic ? key : null);

let calling = 0;
const shown = ['Idempotency-Key', 'Content-Type', 'Prefer', 'If-None-Match', 'Last-Event-ID'];

function recorder(background: boolean) {
  return async (address: string, init: RequestInit): Promise<Response> => {
    const url = new URL(address);
    const given = new Headers(init.headers);
    const headers: Record<string, string> = {};
    for (const name of shown) {
      const value = given.get(name);
      if (value !== null) headers[name] = value;
    }
    const sentToken = given.get('X-Consistency-Token');
    if (sentToken) hold(sentToken);
    const call: Call = {
      id: ++calling, at: Date.now(), method: init.method ?? 'GET', path: url.pathname + url.search, status: 0, ms: null, servedBy: null, age: null, traceId: '',
      code: null, background, stream: url.pathname.endsWith('/stream'), headers, body: typeof init.body === 'string' ? init.body : null, sentToken, token: null,
    };
    put(call);
    const begin = performance.now();
    try {
      const response = await fetch(address, init);
      const age = response.headers.get('Age');
      const refused = response.headers.get('Content-Type')?.startsWith('application/problem+json');
      const ended = {
        ...call, status: response.status, ms: performance.now() - begin, servedBy: response.headers.get('X-Served-By'), age: age === null ? null : Number(age),
        traceId: response.headers.get('X-Trace-ID') ?? '', token: response.headers.get('X-Consistency-Token'),
        code: refused ? (((await response.clone().json().catch(() => null)) as { code?: string } | null)?.code ?? null) : null,
      };
      if (ended.token) hold(ended.token);
      put(ended);
      setLink(true);
      return response;
    } catch (error) {
      const timedOut = (init.signal?.reason as Error | undefined)?.name === 'TimeoutError';
      if (init.signal?.aborted && !timedOut) {
        calls.value = calls.value.filter((c) => c.id !== call.id); // nobody waits for it any more
      } else {
        put({ ...call, ms: performance.now() - begin });
        setLink(false);
      }
      throw error;
    }
  };
}

function put(call: Call): void {
  const others = calls.value.filter((c) => c.id !== call.id);
  const index = others.findIndex((c) => c.id < call.id);
  others.splice(index < 0 ? others.length : index, 0, call);
  calls.value = others.slice(0, KEPT);
}

function hold(token: string): void {
  const current = held.value;
  if (current && Date.now() - current.at < TOKEN_LIFE && token < current.token) return;
  held.value = { token, at: Date.now() };
}

/** The token that a read of the other client would send now. */
export function freshToken(): { consistencyToken: string } | undefined {
  const current = held.value;
  return current && Date.now() - current.at < TOKEN_LIFE ? { consistencyToken: current.token } : undefined;
}

const config = { baseUrl: location.origin, apiKey: () => key, language: 'en' as const };
export const og: Ordergate = createOrdergate({ ...config, fetch: recorder(false) });
/** For what the page reads by itself. It tries once: the next look comes anyway. */
export const quiet: Ordergate = createOrdergate({ ...config, fetch: recorder(true), maxRetries: 0, timeoutMs: 15_000 });
/** A client that has seen nothing yet, and so sends no token. */
export const untokened = (): Ordergate => createOrdergate({ ...config, fetch: recorder(false), maxRetries: 0 });
