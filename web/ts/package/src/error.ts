// The one error that the client throws, typed by operation and code.
import type * as api from './api/types.gen.js';
import type { Order } from './model.js';
import { open, type Open } from './open.js';
import { problems, statuses, type Operations } from './operations.gen.js';

/** An answer that this package has no type for: a code that is newer than it, or what is not Ordergate's, such as a proxy's page. */
export type UnknownProblem = api.Problem & { code: 'UNKNOWN'; /** The body of the answer, or the rejected order. */ body: unknown };

/** No answer, or none that could be read, after all tries. `cause` says why. The operation may have happened: repeat it with `idempotencyKey`. */
export type NetworkProblem = api.Problem & { code: 'NETWORK' };

/** Your `signal` was aborted; `cause` is its reason. The operation may have happened: repeat it with `idempotencyKey`. */
export type AbortedProblem = api.Problem & { code: 'ABORTED' };

// The properties of a refusal beside its code may hold open enumerations; the code itself is exact.
type Refusal<P> = UnknownProblem | NetworkProblem | AbortedProblem | (P extends { code: string } ? { [K in keyof P]: K extends 'code' ? P[K] : Open<P[K]> } : never);

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

// By what an error is known to another copy of this package, in this realm or another one: the registry of symbols is one.
const BRAND = Symbol.for('@ordergate/client.error');

/**
 * Everything that an operation throws, once its arguments are right. `E` is what its `problem` may be. `message` is for logs: code, sentence,
 * first fault, trace id. The sentence alone, in the client's language, is `problem.message`.
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
    super(describe(problem), more); // of it, an Error takes the cause
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
  const { errors: [fault] = [], required_scopes: scopes } = problem as { errors?: api.Fault[]; required_scopes?: string[] };
  const place = fault ? `${fault.pointer}${fault.pointer && ': '}${fault.message}` : scopes;
  return `${problem.code} ${problem.message}${place ? ` (${place})` : ''}${problem.trace_id && ` [trace id ${problem.trace_id}]`}`;
}

(OrdergateError.prototype as any)[BRAND] = true;

/**
 * Whether this was thrown by the client; with an operationId, by that operation, which types `code` and `problem`. It knows the errors of
 * another copy of this package too, also of another realm, such as a frame.
 *
 * @example
 * ```ts
 * try {
 *   await og.orders.cancel(id);
 * } catch (error) {
 *   if (!isOrdergateError(error, 'cancelOrder')) throw error;
 *   if (error.is('ORD_002')) console.log(error.problem.from);
 * }
 * ```
 */
export function isOrdergateError(error: unknown): error is OrdergateError;
export function isOrdergateError<O extends Operation>(error: unknown, operation: O): error is OrdergateError<Errors[O]>;
export function isOrdergateError(error: unknown, operation?: Operation): boolean {
  return (error as { [BRAND]?: true } | null | undefined)?.[BRAND] === true && (!operation || (error as OrdergateError).operation === operation);
}

/** The refusal that an answer's body is. Anything but a problem with a known code becomes UNKNOWN. */
export function problemOf(body: unknown, status: number, instance: string, trace_id: string, told: string): AnyProblem {
  const found = (typeof body === 'object' && body) as Partial<api.Problem> & { code?: string };
  const { code, message } = found;
  const known = statusOf(String(code)) && typeof message === 'string';
  if (known) open(problems[code!], found);
  // 502, 503 and 504 without a word of Ordergate's come from what stands before it.
  const retryable = /429|50[234]/.test(status as any);
  const whole = { ...ownProblem('UNKNOWN', message ?? told, instance, { retryable }), ...found, status, trace_id: found.trace_id || trace_id };
  return (known ? whole : { ...whole, code: 'UNKNOWN', body }) as AnyProblem;
}

/** A problem of the client's own. */
export function ownProblem<C extends 'UNKNOWN' | 'NETWORK' | 'ABORTED'>(code: C, message: string, instance: string, more?: Partial<UnknownProblem>) {
  const problem = { type: 'about:blank', title: message, status: 0, detail: message, instance, message, retryable: true, trace_id: '', ...more, code };
  return problem as api.Problem & { code: C; body: unknown };
}

/** The refusal that a rejected order stands for. It is not retryable: under its key the order is what it is. */
export function rejectionOf(order: Order, traceId: string): Refusal<Rejection> {
  const { code, skus, decline_reason, ...texts } = order.rejection!;
  const known = code !== 'UNKNOWN';
  return {
    ...texts,
    code,
    type: known ? `/docs/errors/${code}` : 'about:blank',
    status: statusOf(code) || 409,
    instance: `/v1/orders/${order.id}`,
    trace_id: traceId,
    ...(skus && { skus }),
    ...(decline_reason && { decline_reason }),
    ...(!known && { body: order }),
  } as Refusal<Rejection>;
}

// The status of a code of the registry; 0 or NaN of any other.
function statusOf(code: string): number {
  const [group, number] = code.split('_');
  const end = 3 * Number(number);
  return Number(String(statuses[group!]).slice(end - 3, end));
}
