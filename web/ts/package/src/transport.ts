// Every request goes through here: credentials, idempotency key, consistency token, retries, and what is thrown.
import { createClient, type Client } from './api/client/index.js';
import { OrdergateError, networkProblem, problemOf, type AnyProblem, type ErrorDetails, type Operation } from './error.js';
import { openAnswer, type Open } from './open.js';
import { Pager, type Page } from './pager.js';

/** How long a consistency token is sent with reads, in ms. By then every copy of the data has caught up. */
const TOKEN_LIFE = 5_000;
/** The first and the longest pause before a retry in ms; it doubles with each, and each is cut by up to a half at random. */
const FIRST_PAUSE = 250;
const LONGEST_BACKOFF = 5_000;
/** For how long the retries go on that reopen a lost stream, in ms: a server is restarted meanwhile, or another one takes its place. */
const OUTAGE = 60_000;
/** A Retry-After above this many seconds is left to the caller. */
const LONGEST_PAUSE = 30;

export interface Config {
  /** The gateway's address, such as `https://orders.example.com`, without `/v1`. */
  baseUrl: string;
  /** `og_test_...` or `og_live_...`. A function is asked before every try, so that keys can be rotated. */
  apiKey: string | (() => string | Promise<string>);
  /** Used instead of the global `fetch`. It is called with one `Request`. */
  fetch?: (request: Request) => Promise<Response>;
  /** Of error messages. */
  language?: 'en' | 'zh-CN';
  /** How often a request is repeated at most; 3. */
  maxRetries?: number;
  /** How long one try may take, in ms; 30,000. */
  timeoutMs?: number;
  /** Called before each try. What a hook throws is ignored, as is its promise. No hook is ever given the API key. */
  onRequest?: (request: RequestEvent) => void;
  /** Called after each try, when its answer was read, also if there was none. */
  onResponse?: (response: ResponseEvent) => void;
  /** Called before the pause that goes before another try. */
  onRetry?: (retry: RetryEvent) => void;
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
  /** By their names in small letters; without `authorization`. */
  headers: Readonly<Record<string, string>>;
  /** What you gave, or undefined. It may hold an address of a person: think before you log it. */
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
  /** What the headers say; null if nothing answered. */
  meta: Meta | null;
  /** The refusal, or the answer that did not come; null if all is well. */
  problem: AnyProblem | null;
}

/** A try that is followed by another. */
export interface RetryEvent extends ResponseEvent {
  /** How long the client waits before. */
  pauseMs: number;
}

export interface RequestOptions {
  /** Ends the request and its retries; its reason is what is thrown. */
  signal?: AbortSignal;
  /** An id of yours for this request, 1 to 64 letters, digits and `-`. */
  traceId?: string;
}

export interface ListOptions extends RequestOptions {
  /** Sent instead of the token that the client remembers: to see what another process wrote. */
  consistencyToken?: string;
}

export interface ReadOptions extends ListOptions {
  /** An ETag that you hold (`meta(order).etag`). If it is still the current one the answer is null. */
  ifNoneMatch?: string;
}

export interface WriteOptions extends RequestOptions {
  /** One per intended change; a new UUID if left out. Kept over the client's own retries. */
  idempotencyKey?: string;
}

export interface WaitOptions extends WriteOptions {
  /** Be answered once the order, the payment or the refund is decided, or after so many seconds: whole ones, at most 10. 0 or left out: at once. */
  waitSeconds?: number;
}

export interface ChangeOptions extends RequestOptions {
  /** The ETag of the state that the change was decided on (`meta(order).etag`); `*` stands for any state. */
  ifMatch: string;
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
  headers: Headers;
}

/** A function of api/sdk.gen.ts, as far as it matters here. */
type Call = (options: any) => Promise<{ data?: unknown; error?: unknown; request?: Request; response?: Response }>;
/** The input of the operation, but for headers; `parseAs` if its answer is not JSON. */
type Input<F extends Call> = Pick<NonNullable<Parameters<F>[0]>, 'body' | 'parseAs' | 'path' | 'query'>;
type Data<F extends Call> = Open<NonNullable<Awaited<ReturnType<F>>['data']>>;
type HeaderValues = Record<string, string | undefined>;

/** A new Idempotency-Key. Older Nodes, and pages that are not served by https or from localhost, have no `crypto.randomUUID`. */
export function newKey(): string {
  if (!globalThis.crypto?.randomUUID) throw new Error('@ordergate/client needs Node 20 or later, or a page served by https; else give an idempotencyKey');
  return crypto.randomUUID();
}

export class Transport {
  private readonly client: Client;
  private readonly metas = new WeakMap<object, Meta>();
  private token = '';
  private tokenSeen = 0;

  constructor(private readonly config: Config) {
    const baseUrl = addressOf(config?.baseUrl);
    const { apiKey } = config;
    this.client = createClient({
      baseUrl,
      auth: typeof apiKey === 'function' ? () => apiKey() : apiKey,
      headers: { 'Accept-Language': config.language },
    });
  }

  meta(answer: object): Meta | undefined {
    return this.metas.get(answer);
  }

  /** Sends a request that changes nothing. Null: what `ifNoneMatch` names is still the current answer. */
  read<F extends Call>(operation: Operation, call: F, input: Input<F>, options: ReadOptions = {}): Promise<Data<F> | null> {
    const headers = () => ({
      'If-None-Match': options.ifNoneMatch,
      'X-Consistency-Token': options.consistencyToken ?? this.freshToken(),
    });
    return this.send(operation, call, input, options, headers);
  }

  /**
   * Opens a stream of server-sent events, after the one with the given id. Null: nothing is left, and nothing will come. A stream that was open
   * before (`reopened`) is tried for OUTAGE, whatever `maxRetries` is.
   */
  stream(operation: Operation, url: string, path: Record<string, string>, lastId: string | undefined, reopened: boolean, options: RequestOptions): Promise<ReadableStream<Uint8Array> | null> {
    const call = (given: any) => this.client.get({ ...given, url, security: [{ scheme: 'bearer', type: 'http' }] });
    const headers = () => ({ 'Last-Event-ID': lastId, 'X-Consistency-Token': this.freshToken() });
    const until = reopened ? Date.now() + OUTAGE : undefined;
    return this.send(operation, call as Call, { path, parseAs: 'stream' } as any, options, headers, undefined, true, until) as Promise<any>;
  }

  /** Sends a POST that changes nothing and needs no key. */
  async ask<F extends Call>(operation: Operation, call: F, input: Input<F>, options: RequestOptions = {}): Promise<Data<F>> {
    return (await this.send(operation, call, input, options, () => ({})))!;
  }

  /** A list, read page by page. */
  list<F extends Call>(operation: Operation, call: F, input: Input<F>, options?: ListOptions): Pager<Data<F> extends Page<infer T> ? T : never> {
    return new Pager((cursor, ifNoneMatch) => {
      const at = cursor === undefined ? input : { ...input, query: { ...input.query, cursor } };
      return this.read(operation, call, at, { ...options, ifNoneMatch }) as Promise<any>;
    });
  }

  /** Sends a POST, each try with the same key. */
  async write<F extends Call>(operation: Operation, call: F, input: Input<F>, options: WaitOptions = {}): Promise<Data<F>> {
    const key = options.idempotencyKey ?? newKey();
    const headers = { 'Idempotency-Key': key, Prefer: preferOf(options.waitSeconds) };
    return (await this.send(operation, call, input, options, () => headers, key))!;
  }

  /**
   * Sends a PATCH. A try whose outcome is not known is not repeated under an ETag: the second one would be refused for what the first one
   * changed.
   */
  async change<F extends Call>(operation: Operation, call: F, input: Input<F>, options: ChangeOptions): Promise<Data<F>> {
    if (!options?.ifMatch) throw new TypeError("ifMatch is required: the ETag of the state that the change was decided on (og.meta(answer).etag), or '*' for any state");
    const headers = { 'If-Match': options.ifMatch };
    return (await this.send(operation, call, input, options, () => headers, undefined, options.ifMatch === '*'))!;
  }

  /** The error to throw; `meta` can be asked of it later. */
  failure(operation: Operation, problem: AnyProblem, meta: Meta | undefined, more: ErrorDetails): OrdergateError {
    const error = new OrdergateError(operation, problem, more);
    if (meta) this.metas.set(error, meta);
    return error;
  }

  private async send<F extends Call>(operation: Operation, call: F, input: Input<F>, options: RequestOptions, headers: () => HeaderValues, idempotencyKey?: string, repeatable = true, until?: number) {
    const { maxRetries = 3 } = this.config;
    for (let retries = 0; ; retries++) {
      let begun = 0;
      let event: RequestEvent | undefined;
      const observe = (request: Request) => {
        const { authorization: _, ...shown } = Object.fromEntries(request.headers);
        const url = new URL(request.url);
        event = { operation, method: request.method, path: url.pathname + url.search, url: request.url, headers: shown, body: (input as { body?: unknown }).body, attempt: retries + 1 };
        begun = performance.now();
        notify(this.config.onRequest, event);
      };
      const { data, error, request, response } = await this.once(call, input, options, headers(), observe);
      const meta = response && this.remember(response);
      const answered = (problem: AnyProblem | null): ResponseEvent => {
        const all = { ...event!, status: response?.status ?? 0, durationMs: performance.now() - begun, meta: meta ?? null, problem };
        notify(this.config.onResponse, all);
        return all;
      };
      if (response?.status === 304) {
        answered(null);
        return null;
      }
      if (response?.ok && error === undefined) {
        answered(null);
        openAnswer(operation, data);
        if (typeof data === 'object' && data !== null) this.metas.set(data, meta!);
        return data as Data<F>;
      }

      if (!request) throw error; // it could not even be made: a bad address, a header value that is none, no key
      const url = new URL(request.url);
      const refused = response && !response.ok && !(error instanceof Error);
      const problem = refused ? problemOf(error, response.status, url.pathname, meta!.traceId) : networkProblem(url, error);
      const ended = answered(problem);
      const unsure = problem.code === 'NETWORK' || problem.code === 'UNKNOWN' || problem.code === 'SYS_006';
      const pause = unsure && !repeatable ? undefined : pauseOf(problem, response, retries);
      const over = until === undefined ? retries >= maxRetries : Date.now() >= until;
      if (over || pause === undefined) {
        throw this.failure(operation, problem, meta, { idempotencyKey, cause: problem.code === 'NETWORK' ? error : undefined });
      }
      notify(this.config.onRetry, { ...ended, pauseMs: pause });
      await sleep(pause, options.signal);
    }
  }

  // One try. The caller's abort is thrown; everything else comes back as hey-api puts it: without a response, nothing answered.
  private async once(call: Call, input: object, { signal, traceId }: RequestOptions, headers: HeaderValues, observe: (request: Request) => void) {
    const { timeoutMs = 30_000 } = this.config;
    signal?.throwIfAborted();
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(new DOMException(`No answer within ${timeoutMs} ms`, 'TimeoutError')), timeoutMs);
    const abort = () => stop.abort(signal!.reason);
    signal?.addEventListener('abort', abort);
    const send = this.config.fetch ?? globalThis.fetch;
    const fetch = (request: Request) => (observe(request), send(request));
    try {
      const result = await call({ parseAs: 'json', ...input, client: this.client, fetch, headers: { ...headers, 'X-Trace-ID': traceId }, signal: stop.signal });
      if (result.error !== undefined) signal?.throwIfAborted();
      return result;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  private remember(response: Response): Meta {
    const { status, headers } = response;
    const token = headers.get('X-Consistency-Token');
    if (token !== null) this.rememberToken(token);
    const age = headers.get('Age');
    return {
      status,
      traceId: headers.get('X-Trace-ID') ?? '',
      etag: headers.get('ETag'),
      servedBy: headers.get('X-Served-By'),
      age: age === null ? null : Number(age),
      consistencyToken: token,
      replayed: headers.get('Idempotency-Replayed') === 'true',
      headers,
    };
  }

  /** The greatest token of the last seconds is the latest. */
  rememberToken(token: string): void {
    if (token < (this.freshToken() ?? '')) return;
    this.token = token;
    this.tokenSeen = Date.now();
  }

  private freshToken(): string | undefined {
    return this.token && Date.now() - this.tokenSeen < TOKEN_LIFE ? this.token : undefined;
  }
}

// Calls a hook, which can break nothing: neither by throwing nor by a promise that is rejected.
function notify<E>(hook: ((event: E) => unknown) | undefined, event: E): void {
  try {
    Promise.resolve(hook?.(event)).catch(() => {});
  } catch {}
}

// The address without a slash at its end. Throws what would only fail, or be answered by nothing, at the first request.
function addressOf(baseUrl: string): string {
  const address = String(baseUrl).replace(/\/+$/, '');
  if (/^https?:\/\/[^\s/?#][^\s?#]*$/i.test(address) && !/\/v1$/i.test(address)) return address;
  throw new Error(`baseUrl must be like http://127.0.0.1:8080, without /v1; it is ${JSON.stringify(baseUrl)}`);
}

// The value of Prefer. The server ignores what it does not understand, so that a wrong value would not wait at all.
function preferOf(waitSeconds: unknown): string | undefined {
  if (waitSeconds === undefined || waitSeconds === 0) return undefined;
  const message = `waitSeconds must be a whole number from 0 to 10; it is ${String(waitSeconds)}`;
  if (typeof waitSeconds !== 'number') throw new TypeError(message);
  if (!Number.isInteger(waitSeconds) || waitSeconds < 0 || waitSeconds > 10) throw new RangeError(message);
  return `wait=${waitSeconds}`;
}

// How many ms to wait before the request is sent again; undefined: not at all. IDEM_003 is the only 409 among what is repeated.
function pauseOf(problem: AnyProblem, response: Response | undefined, retries: number): number | undefined {
  const { code, status, retryable } = problem;
  if (!(code === 'NETWORK' || (retryable && (code === 'IDEM_003' || status === 429 || status >= 500)))) return undefined;
  const asked = Number(response?.headers.get('Retry-After') ?? NaN);
  if (asked > LONGEST_PAUSE) return undefined;
  // The pause that the server asks for is the least; a little more keeps the clients that it turned away from coming back at once.
  return asked >= 0 ? asked * 1000 + Math.random() * 100 : backoff(retries);
}

const backoff = (retries: number) => Math.min(FIRST_PAUSE * 2 ** retries, LONGEST_BACKOFF) * (1 - Math.random() / 2);

/** Waits before a lost stream is opened again. */
export const pauseBefore = (retries: number, signal?: AbortSignal) => sleep(backoff(retries), signal);

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', abort, { once: true });
  });
}
