// The client's face: one method per operation of the contract.
import type * as api from './api/types.gen.js';
import { rejectionOf } from './error.js';
import type { Adjustment, ErrorDescription, Event, Inventory, Order, Payment, Product, Quote, Refund, Saga, Shipment } from './model.js';
import { open } from './open.js';
import * as operations from './operations.gen.js';
import type { Pager } from './pager.js';
import { messages } from './stream.js';
import {
  newKey, parse, pauseBefore, Transport, type ChangeOptions, type Config, type ListOptions, type Meta, type ReadOptions, type RequestOptions, type WaitOptions, type WatchOptions,
  type WriteOptions,
} from './transport.js';

/** So many streams in a row may give nothing, or something that cannot be read: their pauses are a minute. */
const MUTE = 16;

// A read without `ifNoneMatch` is never null.
type Always<O extends ReadOptions = ReadOptions> = Omit<O, 'ifNoneMatch'> & { ifNoneMatch?: undefined };
type AtVersion = ReadOptions & NonNullable<api.GetOrderData['query']>;
/** A filter of a list. `cursor` may be null, as the `next_cursor` of a page is: the list begins at its first page. */
type Query<D extends { query?: object | undefined }> = Omit<NonNullable<D['query']>, 'cursor'> & { cursor?: string | null | undefined };

/**
 * Makes a client. It holds no connection; keep one per API key.
 *
 * @example
 * ```ts
 * const og = createOrdergate({ baseUrl: 'https://orders.example.com', apiKey: 'og_test_...' });
 * ```
 */
export function createOrdergate(config: Config): Ordergate {
  return new Ordergate(config);
}

/**
 * Makes the part that all parts of a client share. With it a program that is to be small takes only the parts that it uses; `createOrdergate` has them all.
 *
 * @example
 * ```ts
 * const transport = createTransport({ baseUrl: 'https://orders.example.com', apiKey: 'og_test_...' });
 * const og = { orders: new Orders(transport) };
 * await og.orders.get('ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f');
 * ```
 */
export function createTransport(config: Config): Transport {
  return new Transport(config);
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
    return this.transport.meta(answer);
  }
}

export class Orders {
  constructor(private readonly transport: Transport) {}

  /**
   * Places an order. With `waitSeconds` it comes back decided (confirmed, or reserved where no payment was given), or still
   * pending when the time is over: `settled` waits on. A refusal is thrown, and so is an order that ended rejected, which then stands in `error.order`.
   *
   * @example
   * ```ts
   * const order = await og.orders.place(
   *   { currency: 'EUR', customer_ref: 'customer-42', lines: [{ sku: 'LAMP-0001', quantity: 1 }], payment: { method_token: 'pm_ok' } },
   *   { waitSeconds: 10 },
   * );
   * ```
   */
  async place(order: api.PlaceOrder, options: WaitOptions = {}): Promise<Order> {
    const idempotencyKey = options.idempotencyKey ?? newKey();
    return this.unlessRejected(await this.transport.write(operations.placeOrder, [], order, { ...options, idempotencyKey }), idempotencyKey);
  }

  /**
   * Says what an order would cost now, and whether its stock suffices. Nothing is changed or held: send `expected_unit_price` when you place it, to
   * be refused rather than to pay another price.
   *
   * @example
   * ```ts
   * const quote = await og.orders.quote({ currency: 'EUR', lines: [{ sku: 'LAMP-0001', quantity: 2 }] });
   * console.log(quote.total.amount, quote.available);
   * ```
   */
  quote(order: api.QuoteOrder, options?: RequestOptions): Promise<Quote> {
    return this.transport.ask(operations.quoteOrder, order, options);
  }

  /**
   * The order as it stands or, with `version` or `as_of`, as it was then.
   *
   * @example
   * ```ts
   * const now = await og.orders.get(id);
   * const first = await og.orders.get(id, { version: 1 });
   * ```
   */
  get(id: string, options?: Always<AtVersion>): Promise<Order>;
  get(id: string, options: AtVersion): Promise<Order | null>;
  get(id: string, { version, as_of, ...options }: AtVersion = {}): Promise<Order | null> {
    return this.transport.read(operations.getOrder, [id], { version, as_of }, options);
  }

  /**
   * The orders, the newest first.
   *
   * @example
   * ```ts
   * for await (const order of og.orders.list({ customer_ref: 'customer-42' })) console.log(order.id, order.status);
   * ```
   */
  list(query?: Query<api.ListOrdersData>, options?: ListOptions): Pager<Order> {
    return this.transport.list(operations.listOrders, [], query, options);
  }

  /**
   * Waits for as long as it takes until nothing is under way for the order: it was placed without a wait or one that was too short, a payment is
   * running, or a cancellation. An order that ended rejected is thrown, as `place` throws it. `signal` bounds the wait.
   *
   * @example
   * ```ts
   * const settled = await og.orders.settled(id, { signal: AbortSignal.timeout(60_000) });
   * console.log(settled.status);
   * ```
   */
  async settled(id: string, options: RequestOptions = {}): Promise<Order> {
    for (let attempt = 1; ; attempt++) {
      const saga = await this.saga(id, options);
      if (saga.state === 'done') {
        const order = await this.get(id, options);
        if (order.status !== 'pending') return this.unlessRejected(order);
      }
      await pauseBefore(Math.min(attempt, 3), options.signal);
    }
  }

  /**
   * Records the cancellation. With `waitSeconds` the order comes back once it is cancelled and refunded, or when the time is over. The
   * options may stand beside the `reason` or, as with every other method, in an object of their own.
   *
   * @example
   * ```ts
   * const order = await og.orders.cancel(id, { reason: 'Ordered twice' }, { waitSeconds: 10 });
   * ```
   */
  cancel(id: string, reasonAndOptions: api.CancelOrder & WaitOptions = {}, options: WaitOptions = {}): Promise<Order> {
    const { reason, ...beside } = reasonAndOptions;
    const body: Record<keyof api.CancelOrder, unknown> | undefined = reason === undefined ? undefined : { reason };
    return this.transport.write(operations.cancelOrder, [id], body, { ...beside, ...options });
  }

  /**
   * Pays an order that was placed without payment. With `waitSeconds` the payment comes back captured, or still `pending` or `authorized`
   * when the time is over; a payment that ended without a charge is thrown: after `PAY_007`, `PAY_003` or `PAY_006` the order still waits,
   * and another method may follow under a new key, unless the provider refused the capture: then the order is rejected. Look at its status.
   *
   * @example
   * ```ts
   * const payment = await og.orders.pay(id, { method_token: 'pm_ok' }, { waitSeconds: 10 });
   * ```
   */
  pay(id: string, payment: api.PayOrder, options?: WaitOptions): Promise<Payment> {
    return this.transport.write(operations.payOrder, [id], payment, options);
  }

  /**
   * Changes what the patch names, and removes what is null in it: the metadata, and until the first shipment the address.
   *
   * @example
   * ```ts
   * const order = await og.orders.get(id);
   * await og.orders.update(id, { metadata: { gift: 'yes' } }, { ifMatch: og.meta(order)!.etag! });
   * ```
   */
  update(id: string, patch: api.UpdateOrder, options: ChangeOptions): Promise<Order> {
    return this.transport.change(operations.updateOrder, [id], patch, options);
  }

  /**
   * Records that pieces of a confirmed order are on their way, all that is unshipped unless `lines` names them.
   *
   * @example
   * ```ts
   * await og.orders.ship(id, { lines: [{ sku: 'LAMP-0001', quantity: 1 }], tracking: { carrier: 'DHL', number: '123' } });
   * ```
   */
  ship(id: string, shipment?: api.ShipOrder, options?: WriteOptions): Promise<Shipment> {
    return this.transport.write(operations.shipOrder, [id], shipment, options);
  }

  /**
   * The payments of an order, the first attempt first.
   *
   * @example
   * ```ts
   * for await (const payment of og.orders.payments(id)) console.log(payment.attempt, payment.status);
   * ```
   */
  payments(id: string, query?: Query<api.ListOrderPaymentsData>, options?: ListOptions): Pager<Payment> {
    return this.transport.list(operations.listOrderPayments, [id], query, options);
  }

  /**
   * The shipments of an order, the first one first.
   *
   * @example
   * ```ts
   * for await (const shipment of og.orders.shipments(id)) console.log(shipment.status);
   * ```
   */
  shipments(id: string, query?: Query<api.ListOrderShipmentsData>, options?: ListOptions): Pager<Shipment> {
    return this.transport.list(operations.listOrderShipments, [id], query, options);
  }

  /**
   * The events of an order, the oldest first.
   *
   * @example
   * ```ts
   * for await (const event of og.orders.events(id)) console.log(event.sequence, event.type);
   * ```
   */
  events(id: string, query?: Query<api.ListOrderEventsData>, options?: ListOptions): Pager<Event> {
    return this.transport.list(operations.listOrderEvents, [id], query, options);
  }

  /**
   * The events of an order as they happen, after the one with the sequence `after`, or all. It ends when the order is final (`rejected`,
   * `cancelled` or `completed`; `confirmed` is not) and nothing is left. A stream that the server ends or that is lost is opened again where it stopped: no event is left out or comes twice. It is tried for a
   * minute, with pauses of up to 5 s, while nothing answers or the answer says that it may succeed later, such as a 503. After that, and if the
   * first stream cannot be opened by the retries that every request has, the error is thrown. So are any other refusal and the abort of `signal`,
   * at once. Streams that give nothing, or what cannot be read, are `UNKNOWN` after a minute. A read of this client after an event is as new as the event.
   *
   * @example
   * ```ts
   * for await (const event of og.orders.watch(id)) {
   *   console.log(event.sequence, event.type);
   *   if (event.type === 'order.confirmed') break;
   * }
   * ```
   */
  async *watch(id: string, options: WatchOptions = {}): AsyncGenerator<Event, void, undefined> {
    const spec = operations.streamOrder;
    let last = options.after;
    // Streams in a row without a new event, and without any message that could be read.
    for (let idle = 0, mute = 0, opened = false; ; opened = true) {
      const body = await this.transport.stream(spec, [id], last, opened, options);
      if (!body) return;
      let heard = false;
      idle++;
      for await (const { id: at = 0, event, data } of messages(body, options.signal)) {
        const sequence = Number(at);
        const message = parse(data ?? '{}');
        heard = message && typeof message === 'object' && Number.isInteger(sequence);
        if (!heard) break; // rubbish: the stream counts as lost
        if (message.reason === 'terminal' && event === 'end') return;
        if (event === 'end') break;
        if (event === 'token') this.transport.rememberToken(message.token);
        if (!data || sequence <= (last ?? 0)) continue;
        open(spec.enums, message);
        last = sequence;
        idle = mute = 0;
        yield message;
      }
      mute = heard ? 0 : mute + 1;
      if (mute > MUTE) throw this.transport.unreadable(spec, 'The stream cannot be read');
      if (idle) await pauseBefore(idle, options.signal);
    }
  }

  /**
   * How far an order is: reserving, paying, compensating.
   *
   * @example
   * ```ts
   * const saga = await og.orders.saga(id);
   * console.log(saga.state, saga.steps.map((step) => `${step.name} ${step.status}`));
   * ```
   */
  saga(id: string, options?: Always): Promise<Saga>;
  saga(id: string, options: ReadOptions): Promise<Saga | null>;
  saga(id: string, options?: ReadOptions): Promise<Saga | null> {
    return this.transport.read(operations.getOrderSaga, [id], undefined, options);
  }

  // A rejected order is thrown as the refusal that it would have been.
  private unlessRejected(order: Order, idempotencyKey?: string): Order {
    if (!order.rejection) return order;
    const meta = this.transport.meta(order);
    throw this.transport.failure('placeOrder', rejectionOf(order, meta?.traceId ?? ''), meta, { order, idempotencyKey });
  }
}

export class Payments {
  constructor(private readonly transport: Transport) {}

  /**
   * A payment.
   *
   * @example
   * ```ts
   * const payment = await og.payments.get('pay_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f');
   * ```
   */
  get(id: string, options?: Always): Promise<Payment>;
  get(id: string, options: ReadOptions): Promise<Payment | null>;
  get(id: string, options?: ReadOptions): Promise<Payment | null> {
    return this.transport.read(operations.getPayment, [id], undefined, options);
  }

  /**
   * The payments of all orders, the newest first.
   *
   * @example
   * ```ts
   * for await (const payment of og.payments.list({ created_from: '2026-11-01T00:00:00Z' })) console.log(payment.id);
   * ```
   */
  list(query?: Query<api.ListPaymentsData>, options?: ListOptions): Pager<Payment> {
    return this.transport.list(operations.listPayments, [], query, options);
  }

  /**
   * Gives a captured payment back: `amount`, or all that is left of it. With `waitSeconds` the refund comes back `succeeded` or `failed`
   * (`failure` says why; nothing is thrown), or still `pending` when the time is over.
   *
   * @example
   * ```ts
   * const refund = await og.payments.refund(payment.id, { reason: 'Arrived broken' }, { waitSeconds: 10 });
   * if (refund.status === 'failed') console.log(refund.failure?.message);
   * ```
   */
  refund(id: string, refund: api.CreateRefund, options: WaitOptions = {}): Promise<Refund> {
    return this.transport.write(operations.refundPayment, [id], refund, options);
  }
}

export class Refunds {
  constructor(private readonly transport: Transport) {}

  /**
   * A refund.
   *
   * @example
   * ```ts
   * const refund = await og.refunds.get('ref_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f');
   * ```
   */
  get(id: string, options?: Always): Promise<Refund>;
  get(id: string, options: ReadOptions): Promise<Refund | null>;
  get(id: string, options?: ReadOptions): Promise<Refund | null> {
    return this.transport.read(operations.getRefund, [id], undefined, options);
  }

  /**
   * The refunds, the newest first, of one payment if the query names it. `payments.refund` makes one.
   *
   * @example
   * ```ts
   * for await (const refund of og.refunds.list({ payment_id: payment.id })) console.log(refund.status);
   * ```
   */
  list(query?: Query<api.ListRefundsData>, options?: ListOptions): Pager<Refund> {
    return this.transport.list(operations.listRefunds, [], query, options);
  }
}

export class Shipments {
  constructor(private readonly transport: Transport) {}

  /**
   * A shipment.
   *
   * @example
   * ```ts
   * const shipment = await og.shipments.get('shp_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f');
   * ```
   */
  get(id: string, options?: Always): Promise<Shipment>;
  get(id: string, options: ReadOptions): Promise<Shipment | null>;
  get(id: string, options?: ReadOptions): Promise<Shipment | null> {
    return this.transport.read(operations.getShipment, [id], undefined, options);
  }

  /**
   * Records that the shipment has arrived. The last one completes its order.
   *
   * @example
   * ```ts
   * const shipment = await og.orders.ship(id);
   * await og.shipments.deliver(shipment.id);
   * ```
   */
  deliver(id: string, options: WriteOptions = {}): Promise<Shipment> {
    return this.transport.write(operations.deliverShipment, [id], undefined, options);
  }
}

export class Products {
  constructor(private readonly transport: Transport) {}

  /**
   * A product.
   *
   * @example
   * ```ts
   * const product = await og.products.get('LAMP-0001');
   * ```
   */
  get(sku: string, options?: Always): Promise<Product>;
  get(sku: string, options: ReadOptions): Promise<Product | null>;
  get(sku: string, options?: ReadOptions): Promise<Product | null> {
    return this.transport.read(operations.getProduct, [sku], undefined, options);
  }

  /**
   * The products, in the order of their skus. An empty `q` is none: all products.
   *
   * @example
   * ```ts
   * for await (const product of og.products.list({ q: 'desk lamp' })) console.log(product.sku, product.name);
   * ```
   */
  list(query?: Query<api.ListProductsData>, options?: ListOptions): Pager<Product> {
    return this.transport.list(operations.listProducts, [], { ...query, q: query?.q || undefined }, options);
  }

  /**
   * Creates a product. Its stock begins with no pieces: `inventory.adjust` adds them.
   *
   * @example
   * ```ts
   * await og.products.create({ sku: 'TABLE-0001', name: 'Side table', prices: [money.fromMajor('89.00', 'EUR')] });
   * ```
   */
  create(product: api.CreateProduct, options?: WriteOptions): Promise<Product> {
    return this.transport.write(operations.createProduct, [], product, options);
  }

  /**
   * Changes what the patch names, if the product is still in the state of `ifMatch`; REQ_010 tells that it is not.
   *
   * @example
   * ```ts
   * const product = await og.products.get('LAMP-0002');
   * await og.products.update(product.sku, { low_stock_at: 20 }, { ifMatch: og.meta(product)!.etag! });
   * ```
   */
  update(sku: string, patch: api.UpdateProduct, options: ChangeOptions): Promise<Product> {
    return this.transport.change(operations.updateProduct, [sku], patch, options);
  }
}

export class InventoryLevels {
  constructor(private readonly transport: Transport) {}

  /**
   * The pieces of a sku that can still be sold. For display: whether an order gets its pieces is decided when it is placed.
   *
   * @example
   * ```ts
   * const { available } = await og.inventory.get('LAMP-0001');
   * ```
   */
  get(sku: string, options?: Always): Promise<Inventory>;
  get(sku: string, options: ReadOptions): Promise<Inventory | null>;
  get(sku: string, options?: ReadOptions): Promise<Inventory | null> {
    return this.transport.read(operations.getInventory, [sku], undefined, options);
  }

  /**
   * Adds pieces that came or, with a minus, takes off pieces that went.
   *
   * @example
   * ```ts
   * await og.inventory.adjust('LAMP-0001', { delta: 12, reason: 'delivery 4711' });
   * ```
   */
  adjust(sku: string, adjustment: api.AdjustInventory, options?: WriteOptions): Promise<Adjustment> {
    return this.transport.write(operations.adjustInventory, [sku], adjustment, options);
  }
}

/** The registry of error codes, as the server has it. Needs no key. */
export class ErrorCodes {
  constructor(private readonly transport: Transport) {}

  /**
   * The meaning of a code, and its remedy.
   *
   * @example
   * ```ts
   * const { message, description } = await og.errors.get('PAY_003');
   * ```
   */
  get(code: string, options?: Always): Promise<ErrorDescription>;
  get(code: string, options: ReadOptions): Promise<ErrorDescription | null>;
  get(code: string, options?: ReadOptions): Promise<ErrorDescription | null> {
    return this.transport.read(operations.getError, [code], undefined, options);
  }

  /**
   * All codes.
   *
   * @example
   * ```ts
   * for await (const { code, status } of og.errors.list()) console.log(code, status);
   * ```
   */
  list(options?: RequestOptions): Pager<ErrorDescription> {
    return this.transport.list(operations.listErrors, [], undefined, options);
  }
}

/** The OpenAPI document that the server goes by. Needs no key. */
export class Contract {
  constructor(private readonly transport: Transport) {}

  /**
   * The document as an object.
   *
   * @example
   * ```ts
   * const contract = await og.contract.json();
   * ```
   */
  json(options?: Always): Promise<Record<string, unknown>>;
  json(options: ReadOptions): Promise<Record<string, unknown> | null>;
  json(options?: ReadOptions): Promise<Record<string, unknown> | null> {
    return this.transport.read(operations.getOpenAPIJSON, [], undefined, options);
  }

  /**
   * The document as text.
   *
   * @example
   * ```ts
   * const text: string = await og.contract.yaml();
   * ```
   */
  yaml(options?: Always): Promise<string>;
  yaml(options: ReadOptions): Promise<string | null>;
  yaml(options?: ReadOptions): Promise<string | null> {
    return this.transport.read(operations.getOpenAPIYAML, [], undefined, options) as unknown as Promise<string | null>;
  }
}
