export {
  Contract, createOrdergate, createTransport, ErrorCodes, InventoryLevels, Ordergate, Orders, Payments, Products, Refunds, Shipments,
} from './client.js';
export { OrdergateError, isOrdergateError, type AbortedProblem, type AnyProblem, type Errors, type NetworkProblem, type Operation, type UnknownProblem } from './error.js';
export * as money from './money.js';
export { type Open } from './open.js';
export { Pager, type Page } from './pager.js';
export type {
  ChangeOptions, Config, ListOptions, Meta, RateLimit, ReadOptions, RequestEvent, RequestOptions, ResponseEvent, RetryEvent, Transport, WaitOptions, WatchOptions,
  WriteOptions,
} from './transport.js';
export { errorCodes, type ErrorCode } from './errors.gen.js';
export type { Adjustment, ErrorDescription, Event, Inventory, Order, Payment, Product, Quote, Refund, Saga, SagaStep, Shipment } from './model.js';
export type {
  Address, AdjustInventory, CancelOrder, CreateProduct, CreateRefund, Fault, Metadata, Money, OrderLine, PaymentFailure, PayOrder, PlaceOrder,
  PlaceOrderLine, Price, Problem, QuoteOrder, ShipOrder, ShipmentLine, ShortSku, Tracking, UpdateOrder, UpdateProduct,
} from './api/types.gen.js';
