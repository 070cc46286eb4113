export { createOrdergate, Ordergate, type Answer, type Contract, type ErrorCodes, type InventoryLevels, type Orders, type Payments, type Products } from './client.js';
export { OrdergateError, isOrdergateError, type AnyProblem, type Errors, type NetworkProblem, type Operation, type UnknownProblem } from './error.js';
export { type Open } from './open.js';
export { Pager, type Page } from './pager.js';
export { type Config, type Meta, type ReadOptions, type RequestOptions, type WaitOptions, type WriteOptions } from './transport.js';
export { errorCodes, type ErrorCode } from './errors.gen.js';
export type { ErrorDescription, Event, Inventory, Order, Payment, Product, Refund, Saga, SagaStep } from './model.js';
export type { Address, CancelOrder, CreateRefund, Fault, Metadata, Money, OrderLine, PaymentFailure, PayOrder, PlaceOrder, PlaceOrderLine, Problem, ShortSku } from './api/types.gen.js';
