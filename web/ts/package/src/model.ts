// The answers as the client gives them: the contract's, but open to values that are newer than this package.
import type * as api from './api/types.gen.js';
import type { Open } from './open.js';

export type Order = Open<api.Order>;
/** One entry of an order's history. `type` tells what `data` holds; a type that this package does not know is 'UNKNOWN'. */
export type Event = Known<api.Event> | (api.EventBase & { type: 'UNKNOWN'; data: Record<string, unknown> });
type Known<E> = E extends { type: string } ? { [K in keyof E]: K extends 'type' ? E[K] : Open<E[K]> } : never;
export type Saga = Open<api.Saga>;
export type SagaStep = Open<api.SagaStep>;
export type Quote = Open<api.Quote>;
export type Payment = Open<api.Payment>;
export type Refund = Open<api.Refund>;
export type Shipment = Open<api.Shipment>;
export type Product = Open<api.Product>;
export type Inventory = Open<api.Inventory>;
export type Adjustment = Open<api.Adjustment>;
/** An entry of the error registry: a code with its status, texts and remedy. */
export type ErrorDescription = Open<api.ErrorCode>;
