// The client's face: one method per operation of the contract.
import * as sdk from './api/sdk.gen.js';
import type * as api from './api/types.gen.js';
import { rejectionOf } from './error.js';
import type { Adjustment, ErrorDescription, Event, Inventory, Order, Payment, Product, Quote, Refund, Saga, Shipment } from './model.js';
import { openAnswer } from './open.js';
import type { Pager } from './pager.js';
import { messages } from './stream.js';
import {
  newKey, pauseBefore, Transport, type ChangeOptions, type Config, type ListOptions, type Meta, type ReadOptions, type RequestOptions, type WaitOptions, type WriteOptions,
} from './transport.js';

/** The promise of a read: null too if it is asked with `ifNoneMatch`. */
export type Answer<T, O extends ReadOptions> = Promise<O extends { ifNoneMatch: string } ? T | null : T>;

/** Makes a client. It holds no connection; keep one per API key. */
export function createOrdergate(config: Config): Ordergate {
  return new Ordergate(config);
}

export class Ordergate {
  private readonly transport: Transport;
  readonly orders: Orders;
  readonly payments: Payments;
  readonly refunds: Refunds;
  readonly shipments: Shipments;
  readonly products: Products;
  readonly inventory: InventoryLevels;
  readonly errors: ErrorCodes;
  readonly contract: Contract;

  constructor(config: Config) {
    this.transport = new Transport(config);
    this.orders = new Orders(this.transport);
    this.payments = new Payments(this.transport);
    this.refunds = new Refunds(this.transport);
    this.shipments = new Shipments(this.transport);
    this.products = new Products(this.transport);
    this.inventory = new InventoryLevels(this.transport);
    this.errors = new ErrorCodes(this.transport);
    this.contract = new Contract(this.transport);
  }

  /** The status and headers of an answer that this client gave (an order, a page, ...) or of an error that it threw. */
  meta(answer: object): Meta | undefined {
    return this.transport.meta(answer);
  }
}

export class Orders {
  constructor(private readonly transport: Transport) {}

  /**
   * Places an order. With `waitSeconds` it comes back decided (confirmed, or reserved where no payment was given), or still
   * pending when the time is over. A refusal is thrown, and so is an order that ended rejected, which then stands in `error.order`.
   */
  async place(order: api.PlaceOrder, options: WaitOptions = {}): Promise<Order> {
    const idempotencyKey = options.idempotencyKey ?? newKey();
    const placed = await this.transport.write('placeOrder', sdk.placeOrder, { body: order }, { ...options, idempotencyKey });
    if (!placed.rejection) return placed;
    const meta = this.transport.meta(placed);
    throw this.transport.failure('placeOrder', rejectionOf(placed, meta?.traceId ?? ''), meta, { order: placed, idempotencyKey });
  }

  /**
   * Says what an order would cost now, and whether its stock suffices. Nothing is changed or held: send `expected_unit_price` when you place it, to
   * be refused rather than to pay another price.
   */
  quote(order: api.QuoteOrder, options?: RequestOptions): Promise<Quote> {
    return this.transport.ask('quoteOrder', sdk.quoteOrder, { body: order }, options);
  }

  /** The order as it stands or, with `version` or `as_of`, as it was then. */
  get<O extends ReadOptions & NonNullable<api.GetOrderData['query']> = {}>(id: string, options?: O) {
    const { version, as_of, ...rest } = options ?? ({} as O);
    return this.transport.read('getOrder', sdk.getOrder, { path: { order_id: id }, query: { version, as_of } }, rest) as Answer<Order, O>;
  }

  /** The newest first. */
  list(query?: api.ListOrdersData['query'], options?: ListOptions): Pager<Order> {
    return this.transport.list('listOrders', sdk.listOrders, { query }, options);
  }

  /**
   * Records the cancellation. With `waitSeconds` the order comes back once it is cancelled and refunded, or when the time is over. The
   * options may stand beside the `reason` or, as with every other method, in an object of their own.
   */
  cancel(id: string, reasonAndOptions: api.CancelOrder & WaitOptions = {}, options: WaitOptions = {}): Promise<Order> {
    const { signal, traceId, idempotencyKey, waitSeconds, ...given } = reasonAndOptions;
    const body = Object.keys(given).length ? given : undefined;
    const all = { signal, traceId, idempotencyKey, waitSeconds, ...options };
    return this.transport.write('cancelOrder', sdk.cancelOrder, { path: { order_id: id }, body }, all);
  }

  /**
   * Pays an order that was placed without payment. With `waitSeconds` the payment comes back captured, or still `pending` or `authorized`
   * when the time is over; a payment that ended without a charge is thrown: after `PAY_007`, `PAY_003` or `PAY_006` the order still waits,
   * and another method may follow under a new key.
   */
  pay(id: string, payment: api.PayOrder, options: WaitOptions = {}): Promise<Payment> {
    return this.transport.write('payOrder', sdk.payOrder, { path: { order_id: id }, body: payment }, options);
  }

  /** Changes what the patch names, and removes what is null in it: the metadata, and until the first shipment the address. */
  update(id: string, patch: api.UpdateOrder, options: ChangeOptions): Promise<Order> {
    return this.transport.change('updateOrder', sdk.updateOrder, { path: { order_id: id }, body: patch }, options);
  }

  /** Records that pieces of a confirmed order are on their way, all that is unshipped unless `lines` names them. */
  ship(id: string, shipment?: api.ShipOrder, options: WriteOptions = {}): Promise<Shipment> {
    return this.transport.write('shipOrder', sdk.shipOrder, { path: { order_id: id }, body: shipment }, options);
  }

  /** The payments of an order, the first attempt first. */
  payments(id: string, query?: api.ListOrderPaymentsData['query'], options?: ListOptions): Pager<Payment> {
    return this.transport.list('listOrderPayments', sdk.listOrderPayments, { path: { order_id: id }, query }, options);
  }

  /** The shipments of an order, the first one first. */
  shipments(id: string, query?: api.ListOrderShipmentsData['query'], options?: ListOptions): Pager<Shipment> {
    return this.transport.list('listOrderShipments', sdk.listOrderShipments, { path: { order_id: id }, query }, options);
  }

  /** The events of an order, the oldest first. */
  events(id: string, query?: api.ListOrderEventsData['query'], options?: ListOptions): Pager<Event> {
    return this.transport.list('listOrderEvents', sdk.listOrderEvents, { path: { order_id: id }, query }, options);
  }

  /**
   * The events of an order as they happen, after the one with the sequence `after`, or all. It ends when the order is final and nothing is
   * left. A stream that the server ends or that is lost is opened again where it stopped: no event is left out or comes twice. It is tried for a
   * minute, with pauses of up to 5 s, while nothing answers or the answer says that it may succeed later, such as a 503. After that, and if the
   * first stream cannot be opened by the retries that every request has, the error is thrown. So are any other refusal and the abort of `signal`,
   * at once. A read of this client after an event is as new as the event.
   */
  async *watch(id: string, options: RequestOptions & { after?: number } = {}): AsyncGenerator<Event, void, undefined> {
    let last = options.after === undefined ? undefined : String(options.after);
    for (let lost = 0, opened = false; ; opened = true) {
      const body = await this.transport.stream('streamOrder', '/v1/orders/{order_id}/stream', { order_id: id }, last, opened, options);
      if (!body) return;
      let reason: string | undefined;
      for await (const { id: sequence, event, data } of messages(body, options.signal)) {
        if (event === 'end') {
          reason = JSON.parse(data).reason;
          break;
        }
        if (event === 'token') {
          this.transport.rememberToken(JSON.parse(data).token);
          continue;
        }
        const page = { data: [JSON.parse(data)] };
        openAnswer('listOrderEvents', page);
        last = sequence;
        lost = 0;
        yield page.data[0];
      }
      if (reason === 'terminal') return;
      options.signal?.throwIfAborted();
      if (reason === undefined) await pauseBefore(lost++, options.signal);
    }
  }

  /** How far an order is: reserving, paying, compensating. */
  saga<O extends ReadOptions = {}>(id: string, options?: O) {
    return this.transport.read('getOrderSaga', sdk.getOrderSaga, { path: { order_id: id } }, options) as Answer<Saga, O>;
  }
}

export class Payments {
  constructor(private readonly transport: Transport) {}

  get<O extends ReadOptions = {}>(id: string, options?: O) {
    return this.transport.read('getPayment', sdk.getPayment, { path: { payment_id: id } }, options) as Answer<Payment, O>;
  }

  /** The newest first. */
  list(query?: api.ListPaymentsData['query'], options?: ListOptions): Pager<Payment> {
    return this.transport.list('listPayments', sdk.listPayments, { query }, options);
  }

  /**
   * Gives a captured payment back: `amount`, or all that is left of it. With `waitSeconds` the refund comes back `succeeded` or `failed`
   * (`failure` says why; nothing is thrown), or still `pending` when the time is over.
   */
  refund(id: string, refund: api.CreateRefund, options: WaitOptions = {}): Promise<Refund> {
    return this.transport.write('refundPayment', sdk.refundPayment, { path: { payment_id: id }, body: refund }, options);
  }
}

export class Refunds {
  constructor(private readonly transport: Transport) {}

  get<O extends ReadOptions = {}>(id: string, options?: O) {
    return this.transport.read('getRefund', sdk.getRefund, { path: { refund_id: id } }, options) as Answer<Refund, O>;
  }

  /** The newest first, of one payment if the query names it. `payments.refund` makes one. */
  list(query?: api.ListRefundsData['query'], options?: ListOptions): Pager<Refund> {
    return this.transport.list('listRefunds', sdk.listRefunds, { query }, options);
  }
}

export class Shipments {
  constructor(private readonly transport: Transport) {}

  get<O extends ReadOptions = {}>(id: string, options?: O) {
    return this.transport.read('getShipment', sdk.getShipment, { path: { shipment_id: id } }, options) as Answer<Shipment, O>;
  }

  /** Records that the shipment has arrived. The last one completes its order. */
  deliver(id: string, options: WriteOptions = {}): Promise<Shipment> {
    return this.transport.write('deliverShipment', sdk.deliverShipment, { path: { shipment_id: id } }, options);
  }
}

export class Products {
  constructor(private readonly transport: Transport) {}

  get<O extends ReadOptions = {}>(sku: string, options?: O) {
    return this.transport.read('getProduct', sdk.getProduct, { path: { sku } }, options) as Answer<Product, O>;
  }

  /** In the order of their skus. */
  list(query?: api.ListProductsData['query'], options?: ListOptions): Pager<Product> {
    return this.transport.list('listProducts', sdk.listProducts, { query }, options);
  }

  /** Creates a product. Its stock begins with no pieces: `inventory.adjust` adds them. */
  create(product: api.CreateProduct, options?: WriteOptions): Promise<Product> {
    return this.transport.write('createProduct', sdk.createProduct, { body: product }, options);
  }

  /** Changes what the patch names, if the product is still in the state of `ifMatch`; REQ_010 tells that it is not. */
  update(sku: string, patch: api.UpdateProduct, options: ChangeOptions): Promise<Product> {
    return this.transport.change('updateProduct', sdk.updateProduct, { path: { sku }, body: patch }, options);
  }
}

export class InventoryLevels {
  constructor(private readonly transport: Transport) {}

  /** The pieces of a sku that can still be sold. For display: whether an order gets its pieces is decided when it is placed. */
  get<O extends ReadOptions = {}>(sku: string, options?: O) {
    return this.transport.read('getInventory', sdk.getInventory, { path: { sku } }, options) as Answer<Inventory, O>;
  }

  /** Adds pieces that came or, with a minus, takes off pieces that went. */
  adjust(sku: string, adjustment: api.AdjustInventory, options?: WriteOptions): Promise<Adjustment> {
    return this.transport.write('adjustInventory', sdk.adjustInventory, { path: { sku }, body: adjustment }, options);
  }
}

/** The registry of error codes, as the server has it. Needs no key. */
export class ErrorCodes {
  constructor(private readonly transport: Transport) {}

  get<O extends ReadOptions = {}>(code: string, options?: O) {
    return this.transport.read('getError', sdk.getError, { path: { code } }, options) as Answer<ErrorDescription, O>;
  }

  list(options?: RequestOptions): Pager<ErrorDescription> {
    return this.transport.list('listErrors', sdk.listErrors, {}, options);
  }
}

/** The OpenAPI document that the server goes by. Needs no key. */
export class Contract {
  constructor(private readonly transport: Transport) {}

  json<O extends ReadOptions = {}>(options?: O) {
    return this.transport.read('getOpenAPIJSON', sdk.getOpenApijson, {}, options) as Answer<Record<string, unknown>, O>;
  }

  yaml<O extends ReadOptions = {}>(options?: O) {
    return this.transport.read('getOpenAPIYAML', sdk.getOpenApiyaml, { parseAs: 'text' }, options) as Answer<string, O>;
  }
}
