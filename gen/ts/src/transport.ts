// Every request goes through here: credentials, idempotency key, consistency token, retries, hooks, and what is thrown.
import { OrdergateError, ownProblem, problemOf, type AnyProblem, type ErrorDetails, type Operation } from './error.js';
import { open, type Enums, type Open } from './open.js';
import type { Operations } from './operations.gen.js';
import { Pager, type Page } from './pager.js';

/** How long a consistency token is sent with reads, in ms. By then every copy of the data has caught up. */
const TOKEN_LIFE = 5_000;
/** The first and the longest pause before a retry in ms; it doubles with each, and each is cut by up to a half at random. */
const FIRST_PAUSE = 250;
const LONGEST_BACKOFF = 5_000;
/** For how long the retries go on that reopen a lost stream, in ms: a server is restarted meanwhile, or another one takes its place. */
const OUTAGE = 60_000;
/** A Retry-After above this many ms is left to the caller. */
const LONGEST_PAUSE = 30_000;
/** A try needs so many ms beside the time that the server waits: a server that waited to the end must still be heard. */
const MARGIN = 500;
/** The longest time that a timer can be set to, in ms. One that is longer would end at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

const STREAM = 'text/event-stream';

/** Options of the client's config and, for one request, of a method. */
export interface CommonOptions {
  /** Used instead of the global `fetch`. */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /** Sent with the request; those that the client sets itself, such as `Authorization`, stay its own. Of the config and of a method both are sent. */
  headers?: Record<string, string | undefined> | undefined;
  /** How often a request is repeated at most; 3. */
  maxRetries?: number | undefined;
  /** How long one try may take, in ms; 30,000. `Infinity`: for as long as it takes. */
  timeoutMs?: number | undefined;
}

export interface Config extends CommonOptions {
  /** The gateway's address, such as `https://orders.example.com`, without `/v1`. */
  baseUrl: string;
  /** `og_test_...` or `og_live_...`. A function is asked before every try, so that keys can be rotated; an error of it is thrown as it is. */
  apiKey: string | (() => string | Promise<string>);
  /** Of error messages. */
  language?: 'en' | 'zh-CN' | undefined;
  /** Called before each try. An error of a hook is ignored, as is its promise. No hook is ever given the API key. */
  onRequest?: ((request: RequestEvent) => unknown) | undefined;
  /** Called after each try, when its answer was read, also if there was none. */
  onResponse?: ((response: ResponseEvent) => unknown) | undefined;
  /** Called before the pause that goes before another try. */
  onRetry?: ((retry: RetryEvent) => unknown) | undefined;
}

/** One try, as it is sent. */
export interface RequestEvent {
  /** The operationId, such as `placeOrder`. */
  operation: Operation;
  method: string;
  /** Path and query, such as `/v1/orders?limit=5`. */
  path: string;
  /** The whole address. */
  url: string;
  /** By their names in small letters; without `authorization` and `cookie`. */
  headers: Readonly<Record<string, string>>;
  /** The body as you gave it, or undefined. It may hold a person's address: think before you log it. */
  body: unknown;
  /** 1, and one more with each retry. */
  attempt: number;
}

/** One try, and what came of it. */
export interface ResponseEvent extends RequestEvent {
  /** 0 if nothing answered. */
  status: number;
  /** From the first byte that was sent to the last that was read; of a stream, to its headers. */
  durationMs: number;
  /** The headers of the answer; null if nothing answered. */
  meta: Meta | null;
  /** The refusal, or the answer that did not come; null if all is well. */
  problem: AnyProblem | null;
}

/** A try that is followed by another. */
export interface RetryEvent extends ResponseEvent {
  /** How long the client waits before. */
  pauseMs: number;
}

export interface RequestOptions extends CommonOptions {
  /** Ends the request and its retries: an OrdergateError `ABORTED` is thrown, whose `cause` is the signal's reason. */
  signal?: AbortSignal | undefined;
  /** An id of yours for this request, 1 to 64 letters, digits and `-`. */
  traceId?: string | undefined;
}

export interface ListOptions extends RequestOptions {
  /** Sent instead of the token that the client remembers: to see what another process wrote. */
  consistencyToken?: string | undefined;
}

export interface ReadOptions extends ListOptions {
  /** An ETag that you hold (`meta(order).etag`). If it is still the current one the answer is null. */
  ifNoneMatch?: string | undefined;
}

export interface WatchOptions extends RequestOptions {
  /** The sequence of the last event that you have; the stream begins behind it. */
  after?: number | undefined;
}

export interface WriteOptions extends RequestOptions {
  /** One per intended change; a new UUID if left out. Kept over the client's own retries. */
  idempotencyKey?: string | undefined;
}

export interface WaitOptions extends WriteOptions {
  /**
   * Be answered once the order, the payment or the refund is decided, or after so many seconds: whole ones, at most 10, and no more than a try
   * may take (`timeoutMs`). 0 or left out: at once.
   */
  waitSeconds?: number | undefined;
}

export interface ChangeOptions extends RequestOptions {
  /** The ETag of the state that the change was decided on (`meta(order).etag`); `*` stands for any state. */
  ifMatch: string;
}

/** The requests that a key may still send. */
export interface RateLimit {
  /** The requests of a window. */
  limit: number;
  /** Those that are left of it. */
  remaining: number;
  /** In so many seconds all of them are back. They come back one by one. */
  resetSeconds: number;
  /** The length of a window. */
  windowSeconds: number;
}

/** The status of an answer, and what its headers say. */
export interface Meta {
  status: number;
  traceId: string;
  etag: string | null;
  /** The tier that answered a read: `lru`, `redis`, `replica`, `primary`, or a newer one. */
  servedBy: string | null;
  /** How many seconds ago that tier read it from a database. */
  age: number | null;
  consistencyToken: string | null;
  /** Whether this is the stored answer of an earlier request with the same key. */
  replayed: boolean;
  /** Null if the key has no limit, or the operation needs no key. */
  rateLimit: RateLimit | null;
  headers: Headers;
}

/** An operation of the contract, as far as it matters here; operations.gen.ts has them all. */
export interface Spec<O extends Operation> {
  id: O;
  /** GET if left out. */
  method?: 'POST' | 'PATCH';
  path: string;
  /** It needs no API key. */
  open?: true;
  /** The media type of its answer, if that is not JSON. */
  type?: string;
  /** A property that each document of its answer has; `id` if left out. */
  has?: string;
  enums?: Enums;
}

type Answers<O extends Operation> = Operations[O]['answers'];
/** The answer of an operation. */
export type Data<O extends Operation> = Open<NonNullable<Answers<O>[keyof Answers<O>]>>;
type HeaderValues = Record<string, string | undefined>;
type Query = object | undefined;

interface Request {
  query?: Query;
  body?: unknown;
  /** An answer that is still this one is null. */
  ifNoneMatch?: string | undefined;
  /** Made anew for each try. */
  headers?: () => HeaderValues;
  idempotencyKey?: string | undefined;
  /** False: a try whose outcome is not known is not repeated. */
  repeatable?: boolean;
  /** Tries end at this time, whatever `maxRetries` is. */
  until?: number | undefined;
}

/** A new Idempotency-Key: a UUIDv4. `crypto.randomUUID` is missing in pages that are not served by https or from localhost. */
export const newKey = () =>
  '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (c) => (+c ^ (crypto.getRandomValues(new Uint8Array(1))[0]! & (15 >> (+c / 4)))).toString(16));

/** The part that all methods of a client share: its config, and the consistency token. */
export class Transport {
  private readonly baseUrl: string;
  private readonly metas = new WeakMap<object, Meta>();
  private token: string | undefined;
  private tokenSeen = 0;
  // A function, so that a client that is logged or serialized shows no key. A private field would break a client behind a Proxy, such as Vue's.
  private readonly config: () => Config;

  constructor(config: Config) {
    this.config = () => config;
    this.baseUrl = addressOf(config?.baseUrl);
    check(config);
    if (typeof config.apiKey !== 'function') bearer(config.apiKey);
  }

  /**
   * The status and headers of an answer that this client gave (an order, a page, ...) or of an error that it threw.
   *
   * @example
   * ```ts
   * const order = await og.orders.get(id);
   * console.log(og.meta(order)?.servedBy, og.meta(order)?.age);
   * ```
   */
  meta(answer: object): Meta | undefined {
    return this.metas.get(answer);
  }

  /** Sends a request that changes nothing. Null: what `ifNoneMatch` names is still the current answer. */
  read<O extends Operation>(spec: Spec<O>, ids: string[], query: Query, options: ReadOptions = {}): Promise<Data<O> | null> {
    const { ifNoneMatch, consistencyToken } = options;
    const headers = () => ({ 'If-None-Match': ifNoneMatch, 'X-Consistency-Token': consistencyToken ?? this.freshToken() });
    return this.send(spec, ids, { query, ifNoneMatch, headers }, options);
  }

  /**
   * Opens a stream of server-sent events, after the one with the given id. Null: nothing is left, and nothing will come. A stream that was open
   * before (`reopened`) is tried for OUTAGE, whatever `maxRetries` is.
   */
  stream(spec: Spec<Operation>, ids: string[], lastId: number | undefined, reopened: boolean, options: RequestOptions): Promise<ReadableStream<Uint8Array> | null> {
    const headers = () => ({ 'Last-Event-ID': lastId?.toString(), 'X-Consistency-Token': this.freshToken() });
    return this.send(spec, ids, { headers, until: reopened ? Date.now() + OUTAGE : undefined }, options) as Promise<any>;
  }

  /** Sends a POST that changes nothing and needs no key. */
  ask<O extends Operation>(spec: Spec<O>, body: unknown, options: RequestOptions = {}): Promise<Data<O>> {
    return this.send(spec, [], { body }, options) as Promise<Data<O>>;
  }

  /** A list, read page by page. */
  list<O extends Operation>(spec: Spec<O>, ids: string[], query: Query, options: ListOptions = {}): Pager<Data<O> extends Page<infer T> ? T : never> {
    return new Pager(
      (cursor, ifNoneMatch) => this.read(spec, ids, { ...query, cursor }, { ...options, ifNoneMatch }) as Promise<any>,
      () => this.unreadable(spec, 'The list has no end'),
      (query as { cursor?: string | null } | undefined)?.cursor,
    );
  }

  /** Sends a POST, each try with the same key. */
  async write<O extends Operation>(spec: Spec<O>, ids: string[], body: unknown, options: WaitOptions = {}): Promise<Data<O>> {
    const idempotencyKey = options.idempotencyKey ?? newKey();
    const headers = { 'Idempotency-Key': idempotencyKey, Prefer: preferOf(options.waitSeconds, options.timeoutMs ?? this.config().timeoutMs) };
    return this.send(spec, ids, { body, headers: () => headers, idempotencyKey }, options) as Promise<Data<O>>;
  }

  /**
   * Sends a PATCH. A try whose outcome is not known is not repeated under an ETag: the second one would be refused for what the first one
   * changed.
   */
  async change<O extends Operation>(spec: Spec<O>, ids: string[], body: unknown, options: ChangeOptions): Promise<Data<O>> {
    if (!options?.ifMatch) refuse('ifMatch', "an ETag or '*'", options?.ifMatch);
    const headers = { 'If-Match': options.ifMatch };
    return this.send(spec, ids, { body, headers: () => headers, repeatable: options.ifMatch === '*' }, options) as Promise<Data<O>>;
  }

  /** The error to throw; `meta` can be asked of it later. */
  failure(operation: Operation, problem: AnyProblem, meta?: Meta | null, more: ErrorDetails = {}): OrdergateError {
    const error = new OrdergateError(operation, problem, more);
    if (meta) this.metas.set(error, meta);
    return error;
  }

  /** The error of answers that each are right, and together are none. */
  unreadable(spec: Spec<Operation>, message: string): OrdergateError {
    return this.failure(spec.id, ownProblem('UNKNOWN', message, spec.path, { retryable: false }));
  }

  private async send<O extends Operation>(spec: Spec<O>, ids: string[], request: Request, options: RequestOptions): Promise<Data<O> | null> {
    check(options);
    const { signal } = options;
    const { idempotencyKey, repeatable = true, until } = request;
    const config = this.config();
    const maxRetries = options.maxRetries ?? config.maxRetries ?? 3;
    const timeoutMs = options.timeoutMs ?? config.timeoutMs ?? 30_000;
    const fetch = options.fetch ?? config.fetch ?? globalThis.fetch;
    const { apiKey } = config;
    const { method = 'GET' } = spec;
    const path = pathOf(spec.path, ids, request.query);
    const url = this.baseUrl + path;
    const body = JSON.stringify(request.body);
    for (let attempt = 1; ; attempt++) {
      const headers = headersOf(spec, request, config, options);
      const event: RequestEvent = { operation: spec.id, method, path, url, headers: shown(headers), body: request.body, attempt };
      let response: Response | undefined;
      let data: Data<O> | null = null;
      let problem: AnyProblem | null;
      const more: ErrorDetails = { idempotencyKey };
      let begun = 0;
      let keyError: unknown;
      try {
        [data, problem] = await inTime(timeoutMs, signal, async (signal) => {
          try {
            if (!spec.open) headers.set('Authorization', bearer(await (typeof apiKey === 'function' ? apiKey() : apiKey)));
          } catch (error) {
            throw (keyError = error);
          }
          signal.throwIfAborted(); // a key that comes too late sends nothing
          notify(config.onRequest, event);
          begun = performance.now();
          response = await fetch(url, {
            method,
            headers,
            signal,
            // A redirection would turn a POST into a GET, and is no answer of Ordergate's.
            redirect: 'manual',
            body,
          });
          return judge(spec, response, this.baseUrl, path, request.ifNoneMatch !== undefined);
        });
      } catch (error) {
        if (error === keyError && !signal?.aborted) throw error;
        more.cause = error;
        problem = signal?.aborted ? ownProblem('ABORTED', 'Aborted', path) : ownProblem('NETWORK', noAnswer(this.baseUrl, error), path);
      }
      const meta = response ? this.remember(response) : null;
      const ended: ResponseEvent = { ...event, status: meta?.status ?? 0, durationMs: begun && performance.now() - begun, meta, problem };
      if (begun) notify(config.onResponse, ended);
      if (!problem) {
        open(spec.enums, data);
        if (data && typeof data === 'object') this.metas.set(data, meta!);
        return data;
      }

      const unsure = ['NETWORK', 'UNKNOWN', 'SYS_001', 'SYS_006'].includes(problem.code);
      const pauseMs = unsure && !repeatable ? undefined : pauseOf(problem, response, attempt);
      const over = until === undefined ? attempt > maxRetries : Date.now() >= until;
      if (over || pauseMs === undefined) throw this.failure(spec.id, problem, meta, more);
      notify(config.onRetry, { ...ended, pauseMs });
      await sleep(pauseMs, signal); // an abort ends it, and is thrown by the next try
    }
  }

  private remember(response: Response): Meta {
    const { status, headers } = response;
    const token = headers.get('X-Consistency-Token');
    this.rememberToken(token);
    const age = headers.get('Age');
    return {
      status,
      traceId: headers.get('X-Trace-ID') ?? '',
      etag: headers.get('ETag'),
      servedBy: headers.get('X-Served-By'),
      age: age === null ? null : Number(age),
      consistencyToken: token,
      replayed: headers.get('Idempotency-Replayed') === 'true',
      rateLimit: rateLimitOf(headers),
      headers,
    };
  }

  /** The greatest token of the last seconds is the latest. */
  rememberToken(token: string | null): void {
    if (!token || token < (this.freshToken() ?? '')) return;
    this.token = token;
    this.tokenSeen = Date.now();
  }

  private freshToken(): string | undefined {
    return Date.now() - this.tokenSeen < TOKEN_LIFE ? this.token : undefined;
  }
}

function headersOf(spec: Spec<Operation>, request: Request, config: Config, options: RequestOptions): Headers {
  const headers = new Headers();
  const all = [
    config.headers, options.headers, {
      'Accept-Language': config.language,
      'X-Trace-ID': options.traceId,
      'Content-Type': request.body === undefined ? undefined : `application/${spec.method === 'PATCH' ? 'merge-patch+' : ''}json`,
    }, request.headers?.(),
  ];
  for (const values of all) for (const [name, value] of Object.entries(values ?? {})) if (value !== undefined) headers.set(name, value);
  return headers;
}

// The answer, or the problem that it is instead. An answer that breaks off is thrown. A page is told nothing of a redirection, not even its status.
async function judge<O extends Operation>(spec: Spec<O>, response: Response, baseUrl: string, path: string, conditional: boolean): Promise<[Data<O> | null, AnyProblem | null]> {
  const { status, ok, headers } = response;
  const media = headers.get('Content-Type') ?? 'no type';
  const trace_id = headers.get('X-Trace-ID') ?? '';
  const message = (what: string) => `HTTP ${status || '3xx'} from ${baseUrl}, ${what}. Wrong baseUrl?`;
  const wrong = (what: string, body: unknown): [null, AnyProblem] =>
    [null, ownProblem('UNKNOWN', message(what), path, { status, trace_id, retryable: false, body })];
  if ((status === 304 && conditional) || (status === 204 && spec.type === STREAM)) return [null, null];
  if (!status || (status >= 300 && status < 400)) {
    response.body?.cancel().catch(() => {});
    return wrong(`Location: ${headers.get('Location')}`, '');
  }
  const declared = ok && spec.type && media.startsWith(spec.type);
  if (declared && spec.type === STREAM && response.body) return [response.body as unknown as Data<O>, null];

  const text = await response.text();
  if (declared && text) return [text as Data<O>, null];
  const parsed = parse(text);
  if (ok && parsed === undefined && /json/i.test(media) && headers.get('Content-Length') !== '0') throw new Error('half a document');
  const body = parsed ?? text;
  if (!ok) return [null, problemOf(body, status, path, trace_id, message(media))];
  const { has = 'id' } = spec;
  const document = !spec.type && parsed?.[has];
  if (!document || (has === 'data' && !Array.isArray(document))) return wrong(text ? media : 'no body', body);
  return [body as Data<O>, null];
}

/** The value of a JSON text, undefined if it is none. */
export function parse(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Does the work with a signal that aborts after so many ms, and as yours does. It ends then even if the work does not listen. */
export async function inTime<T>(ms: number, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const stop = new AbortController();
  let abort!: () => void;
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    return await Promise.race([
      new Promise<never>((_, reject) => {
        const end = (reason: unknown) => (reject(reason), stop.abort(reason));
        abort = () => end(signal!.reason);
        signal?.addEventListener('abort', abort);
        if (ms <= LONGEST_TIMER) timer = setTimeout(() => end(new DOMException(`No answer within ${ms} ms`, 'TimeoutError')), ms);
      }),
      work(stop.signal),
    ]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}

// Calls a hook, which can break nothing: neither by throwing nor by a promise that is rejected.
async function notify<E>(hook: ((event: E) => unknown) | undefined, event: E): Promise<void> {
  try {
    await hook?.(event);
  } catch {}
}

function shown(headers: Headers): Record<string, string> {
  const { authorization, cookie, ...rest } = Object.fromEntries(headers as unknown as Iterable<[string, string]>);
  return rest;
}

/** Refuses an argument that could not do what it says. `['not']` stands for one that may be secret. */
function refuse(name: string, rule: string, value: unknown): never {
  throw new TypeError(`${name} must be ${rule}; it is ${typeof value === 'string' ? JSON.stringify(value) : value}`);
}

// The address without a slash at its end. Throws what would only fail, or be answered by nothing, at the first request.
function addressOf(baseUrl: string): string {
  const address = String(baseUrl).replace(/\/+$/, '');
  if (/^https?:\/\/[^\s/?#@]+(\/[^\s?#]*)?(?<!\/v1)$/i.test(address)) return address;
  refuse('baseUrl', 'like http://127.0.0.1:8080, without /v1 or a password', /@/.test(address) ? ['not'] : baseUrl);
}

function check({ maxRetries = 0, timeoutMs = 1 }: CommonOptions): void {
  if (!(timeoutMs > 0)) refuse('timeoutMs', 'above 0', timeoutMs);
  if (!(maxRetries >= 0)) refuse('maxRetries', 'a number from 0', maxRetries);
}

// A key that is none would be refused by Headers, with the key in the message.
function bearer(key: string): string {
  return typeof key === 'string' && /^[!-~]+$/.test(key) ? `Bearer ${key}` : refuse('apiKey', 'visible ASCII or a function', key ? ['not'] : key);
}

function pathOf(template: string, ids: string[], query: Query): string {
  let i = 0;
  const path = template.replace(/\{(\w+)\}/g, (_, name) => {
    const id = ids[i++];
    // Nothing, and one or two dots, would ask another address.
    return typeof id !== 'string' || /^\.{0,2}$/.test(id) ? refuse(name, 'an id', id) : encodeURIComponent(id);
  });
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null);
  return path + given.map(([name, value], i) => `${i ? '&' : '?'}${name}=${encodeURIComponent(value)}`).join('');
}

// The value of Prefer. The server ignores what it does not understand, so that a wrong value would not wait at all.
function preferOf(waitSeconds: number | undefined, timeoutMs = Infinity): string | undefined {
  if (waitSeconds === undefined) return undefined;
  if (!Number.isInteger(waitSeconds) || waitSeconds < 0 || waitSeconds > 10) refuse('waitSeconds', 'a whole number from 0 to 10', waitSeconds);
  const seconds = Math.min(waitSeconds, Math.floor((timeoutMs - MARGIN) / 1000));
  return seconds > 0 ? `wait=${seconds}` : undefined;
}

// Why nothing answered. A page is told nothing but that it failed, by a rule of browsers.
function noAnswer(baseUrl: string, error: unknown): string {
  const { cause, message } = (error ?? {}) as { cause?: Error; message?: string };
  const reason = cause?.message || message;
  const page: string | undefined = (globalThis as { location?: { origin: string } }).location?.origin;
  const cors = page && new URL(baseUrl).origin !== page ? `. Is ${page} in ORDERGATE_ORIGINS (CORS)? It refuses headers of your own, too` : '';
  return `No answer from ${baseUrl}${reason ? `: ${reason}` : ''}${cors}`;
}

// The first policy of the two headers, which are lists of the IETF draft.
function rateLimitOf(headers: Headers): RateLimit | null {
  const number = (header: string, name: string) => Number(headers.get(header)?.match(`^[^,]*;\\s*${name}=(\\d+)`)?.[1]);
  const remaining = number('RateLimit', 'r');
  if (!(remaining >= 0)) return null;
  return { limit: number('RateLimit-Policy', 'q'), remaining, resetSeconds: number('RateLimit', 't'), windowSeconds: number('RateLimit-Policy', 'w') };
}

// How many ms to wait before the request is sent again; undefined: not at all. IDEM_003 is the only 409 among what is repeated.
function pauseOf(problem: AnyProblem, response: Response | undefined, attempt: number): number | undefined {
  const { code, status, retryable } = problem;
  if (!(code === 'NETWORK' || (retryable && (code === 'IDEM_003' || status === 429 || status >= 500)))) return undefined;
  const header = (name: string): any => response?.headers.get(name);
  const after = header('Retry-After');
  // Seconds, or a date: that of the server's clock, if it says so.
  const asked = /^\d+$/.test(after) ? Number(after) * 1000 : dateOf(after) - (dateOf(header('Date')) || Date.now());
  if (asked > LONGEST_PAUSE) return undefined;
  // The pause that the server asks for is the least; a little more keeps the clients that it turned away from coming back at once.
  return asked >= 0 ? asked + Math.random() * 100 : backoff(attempt);
}

// The time of an HTTP date, NaN of anything else. Date.parse alone takes -5 and 1.5 for dates, too.
const dateOf = (text: any) => (/^\w+, .+ GMT$/.test(text) ? Date.parse(text) : NaN);

const backoff = (attempt: number) => Math.min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_BACKOFF) * (1 - Math.random() / 2);

/** Waits before the next try, or until the signal aborts. */
export const pauseBefore = (attempt: number, signal?: AbortSignal) => sleep(backoff(attempt), signal);

const sleep = (ms: number, signal?: AbortSignal) => inTime(ms, signal, () => new Promise(() => {})).catch(() => {});
