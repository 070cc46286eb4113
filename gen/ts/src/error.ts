// The one error that the client throws, typed by operation and code.
import type * as api from './api/types.gen.js';
import type { Order } from './model.js';
import { open, type Open } from './open.js';
import { errorStatus, type Operations } from './tables.gen.js';

/** A refusal that this package has no type for: a code that is newer than it, or an answer that is not Ordergate's, such as a proxy's. */
export type UnknownProblem = api.Problem & { code: 'UNKNOWN'; /** The body of the answer, or the rejected order. */ body: unknown };

/** No answer, or none that could be read, after all tries. `cause` says why. The operation may have happened: repeat it with `idempotencyKey`. */
export type NetworkProblem = api.Problem & { code: 'NETWORK' };

// The properties of a refusal beside its code may hold open enumerations; the code itself is exact.
type Refusal<P> = UnknownProblem | NetworkProblem | (P extends { code: string } ? { [K in keyof P]: K extends 'code' ? P[K] : Open<P[K]> } : never);

// A rejected order is thrown as the refusal that it would have been, had it been known at once.
type Rejection = {
  [C in NonNullable<api.Order['rejection']>['code']]: api.Problem & { code: C } & (C extends keyof RejectionExtras ? RejectionExtras[C] : unknown);
}[NonNullable<api.Order['rejection']>['code']];
type RejectionExtras = {
  INV_002: { skus: api.ShortSku[] };
  PAY_007: { decline_reason: string };
};

export type Operation = keyof Operations;
/** The problems that each operation can throw, by its operationId. An operation that makes an order (201) throws its rejection, too. */
export type Errors = {
  [O in Operation]: Refusal<Operations[O]['refusals'] | (Operations[O]['answers'] extends { 201: api.Order } ? Rejection : never)>;
};
export type AnyProblem = Errors[Operation];

export interface ErrorDetails {
  order?: Order;
  idempotencyKey?: string | undefined;
  cause?: unknown;
}

/**
 * Everything that an operation can throw but the reason of your own AbortSignal. `E` is what its `problem` may be. `message` is for logs:
 * code, sentence, first fault, trace id. The sentence alone, in the client's language, is `problem.message`.
 */
export class OrdergateError<E extends AnyProblem = AnyProblem> extends Error {
  override readonly name = 'OrdergateError';
  readonly code: E['code'];
  /** Of the HTTP answer, 0 if there was none; of a rejected order that of the refusal it stands for. */
  readonly status: number;
  /** True: the same request with the same key (`idempotencyKey`) may succeed later. */
  readonly retryable: boolean;
  /** Name it when you ask us about this error. Empty if nothing answered. */
  readonly traceId: string;
  /** The order, if one was made and ended rejected; null if the refusal came first. */
  readonly order: Order | null;
  /** The key that a write was sent with. */
  readonly idempotencyKey: string | null;

  constructor(
    readonly operation: Operation,
    /** The whole refusal; a switch over `problem.code` narrows it to what the code carries. */
    readonly problem: E,
    more: ErrorDetails = {},
  ) {
    super(describe(problem), more.cause === undefined ? undefined : { cause: more.cause });
    this.code = problem.code;
    this.status = problem.status;
    this.retryable = problem.retryable;
    this.traceId = problem.trace_id;
    this.order = more.order ?? null;
    this.idempotencyKey = more.idempotencyKey ?? null;
  }

  /** Narrows to one code: `if (error.is('ORD_004')) error.problem.actual`. */
  is<C extends E['code']>(code: C): this is OrdergateError<Extract<E, { code: C }>> {
    return this.code === code;
  }
}

function describe(problem: AnyProblem): string {
  const fault = (problem as { errors?: api.Fault[] }).errors?.[0];
  const place = fault && ` (${fault.pointer}${fault.pointer && ': '}${fault.message})`;
  return `${problem.code} ${problem.message}${place ?? ''}${problem.trace_id && ` [trace id ${problem.trace_id}]`}`;
}

/** Whether this was thrown by the client; with an operationId, by that operation, which types `code` and `problem`. */
export function isOrdergateError(error: unknown): error is OrdergateError;
export function isOrdergateError<O extends Operation>(error: unknown, operation: O): error is OrdergateError<Errors[O]>;
export function isOrdergateError(error: unknown, operation?: Operation): boolean {
  // By name: a process can hold this package twice, as an ES module and as CommonJS.
  return error instanceof Error && error.name === 'OrdergateError' && (!operation || (error as OrdergateError).operation === operation);
}

/** The refusal that an answer's body is. Anything but a problem with a known code becomes UNKNOWN. */
export function problemOf(body: unknown, status: number, instance: string, traceId: string): AnyProblem {
  const found = (typeof body === 'object' && body !== null ? body : {}) as Partial<api.Problem> & { code?: string };
  if (found.code !== undefined && Object.hasOwn(errorStatus, found.code)) {
    open('Problem' + found.code, found);
    return found as AnyProblem;
  }
  const message = found.message ?? `HTTP status ${status}`;
  // 502, 503 and 504 without a word of Ordergate's come from what stands before it.
  const retryable = found.retryable ?? (status === 429 || (status >= 502 && status <= 504));
  return { type: 'about:blank', title: message, detail: message, instance, trace_id: traceId, ...found, message, status, retryable, code: 'UNKNOWN', body };
}

/** The problem of a request that got no answer. */
export function networkProblem(url: URL, cause: unknown): NetworkProblem {
  const reason = cause instanceof Error ? (cause.cause instanceof Error && cause.cause.message) || cause.message : '';
  const message = `No answer from ${url.origin}${reason && `: ${reason}`}`;
  const instance = url.pathname;
  return { type: 'about:blank', title: 'No answer', status: 0, detail: message, instance, message, retryable: true, trace_id: '', code: 'NETWORK' };
}

/** The refusal that a rejected order stands for. It is not retryable: under its key the order is what it is. */
export function rejectionOf(order: Order, traceId: string): Refusal<Rejection> {
  const { code, title, message, detail, skus, decline_reason } = order.rejection!;
  const problem = {
    type: code === 'UNKNOWN' ? 'about:blank' : `/docs/errors/${code}`,
    title,
    status: errorStatus[code] ?? 409,
    detail,
    instance: `/v1/orders/${order.id}`,
    message,
    retryable: false,
    trace_id: traceId,
  };
  if (code === 'INV_002') return { ...problem, code, skus: skus ?? [] };
  if (code === 'PAY_007') return { ...problem, code, decline_reason: decline_reason ?? '' };
  if (code === 'UNKNOWN') return { ...problem, code, body: order };
  return { ...problem, code };
}
