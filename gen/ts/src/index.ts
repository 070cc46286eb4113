export { createOrdergate, Ordergate, type Answer, type Contract, type ErrorCodes, type InventoryLevels, type Orders, type Payments, type Products, type Refunds, type Shipments } from './client.js';
export { OrdergateError, isOrdergateError, type AnyProblem, type Errors, type NetworkProblem, type Operation, type UnknownProblem } from './error.js';
export { type Open } from './open.js';
export { Pager, type Page } from './pager.js';
export { type ChangeOptions, type Config, type ListOptions, type Meta, type ReadOptions, type RequestEvent, type RequestOptions, type ResponseEvent, type RetryEvent, type WaitOptions, type WriteOptions } from './transport.js';
export { errorCodes, type ErrorCode } from './errors.gen.js';
export type { Adjustment, ErrorDescription, Event, Inventory, Order, Payment, Product, Quote, Refund, Saga, SagaStep, Shipment } from './model.js';
export type {
  Address, AdjustInventory, CancelOrder, CreateProduct, CreateRefund, Fault, Metadata, Money, OrderLine, PaymentFailure, PayOrder, PlaceOrder,
  PlaceOrderLine, Price, Problem, ShipOrder, ShipmentLine, ShortSku, Tracking, UpdateOrder, UpdateProduct,
} from './api/types.gen.js';
