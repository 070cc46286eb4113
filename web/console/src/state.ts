// The state of the page, and how it comes there. Components read the signals and call the functions; nothing else changes a signal.
import { batch, computed, effect, signal, untracked } from '@preact/signals';
import { isOrdergateError, money, type Event, type Money, type Order, type Payment, type Product, type Saga, type Shipment } from '@ordergate/client';
import { freshToken, link, og, quiet, untokened, useKey } from './api.js';
import { refundable, stateOf, stepLabel, verdicts, type Action, type Outcome } from './rules.js';

/** A refusal as it is shown. */
export interface Problem {
  code: string;
  message: string;
  remedy: string;
  traceId: string;
  /** Sends it again under its key. */
  again?: () => void;
}

function problemOf(error: unknown): Problem {
  if (!isOrdergateError(error)) return { code: 'NETWORK', message: error instanceof Error ? error.message : String(error), remedy: 'Reload the page.', traceId: '' };
  const { code, message, detail, trace_id } = error.problem;
  if (code === 'NETWORK') return { code, message: 'The gateway does not answer.', remedy: 'An order that was taken in goes on without this page. A request may have been taken in although no answer came: sent again under its key, it happens once.', traceId: '' };
  const { errors = [], refundable } = error.problem as { errors?: { pointer?: string; parameter?: string; message: string }[]; refundable?: Money };
  const remedy = [detail, ...errors.map((e) => `${e.parameter ?? e.pointer ?? ''} ${e.message}.`.trim()), ...(refundable ? [`At most ${money.toMajor(refundable)} ${refundable.currency} can be refunded.`] : [])];
  return { code, message, remedy: remedy.join(' '), traceId: trace_id };
}

/** The text for screen readers. */
export const announcement = signal('');
export const announce = (text: string): void => { announcement.value = text; };

/** The time, for what counts. It moves ten times a second while something runs, else once. */
export const now = signal(Date.now());

/** The storage that outlives a reload of this tab. Where storage is switched off, nothing is. */
const kept = {
  read<T>(name: string): T | null {
    try {
      return JSON.parse(sessionStorage.getItem(name) ?? 'null') as T | null;
    } catch {
      return null;
    }
  },
  write(name: string, value: unknown): void {
    try {
      if (value === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      // It lasts for this page.
    }
  },
};

// ---- the key

export const access = signal<'unknown' | 'asked' | 'given'>('unknown');
export const keyProblem = signal<Problem | null>(null);

/** Asks the installation for a key for its page. In production there is none to be had: the reader types one in. */
export async function start(): Promise<void> {
  let key = '';
  try {
    const response = await fetch('/console/config.json', { cache: 'no-store' });
    if (response.ok) key = ((await response.json()) as { api_key?: string }).api_key ?? '';
  } catch {
    // The form says what is wrong as soon as a key is tried.
  }
  if (key) enter(key, true);
  else access.value = 'asked';
  setInterval(() => { now.value = Date.now(); }, 1000);
  setInterval(() => { if (running.value) now.value = Date.now(); }, 100);
  setInterval(lookAround, 5000);
  let wasUp = true;
  effect(() => {
    const { up } = link.value;
    if (up && !wasUp) untracked(recover);
    wasUp = up;
  });
  addEventListener('hashchange', () => follow(idOfAddress()));
}

/** Takes a key that was typed in, if the gateway knows it. Orders of a live key would be real. */
export async function tryKey(key: string): Promise<void> {
  if (key.startsWith('og_live_')) {
    keyProblem.value = { code: 'og_live_', message: 'This is a live key', remedy: 'Orders placed with it would be real. Enter a test key, which begins with og_test_.', traceId: '' };
    return;
  }
  useKey(key, false);
  try {
    await og.products.list({ limit: 1 }).page();
    enter(key, false);
  } catch (error) {
    keyProblem.value = problemOf(error);
  }
}

function enter(key: string, isPublic: boolean): void {
  useKey(key, isPublic);
  batch(() => {
    access.value = 'given';
    keyProblem.value = null;
  });
  void search(query.value);
  follow(idOfAddress());
  const unanswered = kept.read<Write>('write');
  if (unanswered) {
    problem.value = {
      code: 'NETWORK', message: 'A request of this page has no answer', traceId: '', again: () => void send(unanswered.button, () => unanswered),
      remedy: `It was to ${unanswered.does === 'place' ? 'place an order' : `${unanswered.does} ${unanswered.order}`} when the page was left, and may have been taken in. Sent again under its key, it happens once.`,
    };
  }
}

// ---- the catalogue

export const products = signal<Product[]>([]);
export const cursor = signal<string | null>(null);
export const catalogue = signal<'loading' | 'ready' | 'failed'>('loading');
export const catalogueProblem = signal<Problem | null>(null);
const shop = kept.read<{ query: string; currency: string; lines: Line[] }>('shop');
export const query = signal(shop?.query ?? '');
export const currencies = ['EUR', 'CNY', 'JPY', 'KWD'];
export const currency = signal(shop?.currency ?? 'EUR');

/** The pieces that can still be sold, by sku. */
export const stock = signal<ReadonlyMap<string, number>>(new Map());

/** Skus that can be seen at this moment. */
export const visible = new Set<string>();

let loaded = shop !== null;
let searching = new AbortController();
export async function search(q: string): Promise<void> {
  searching.abort();
  const { signal: aborted } = (searching = new AbortController());
  batch(() => {
    query.value = q;
    catalogue.value = 'loading';
  });
  try {
    const page = await og.products.list({ limit: 24, ...(q.trim() && { q: q.trim() }) }, { signal: aborted }).page();
    if (aborted.aborted) return;
    batch(() => {
      products.value = page.data;
      cursor.value = page.next_cursor;
      catalogue.value = 'ready';
      catalogueProblem.value = null;
      // So that the first order is one click away. A basket that was emptied later stays empty.
      if (!loaded && page.data[0]) basket.value = new Map([[page.data[0].sku, { product: page.data[0], quantity: 1 }]]);
      loaded = true;
    });
    announce(`${page.data.length}${page.next_cursor ? ' and more' : ''} products`);
    void readStock(page.data.slice(0, 10).map((p) => p.sku));
  } catch (error) {
    if (aborted.aborted) return;
    batch(() => {
      catalogue.value = 'failed';
      catalogueProblem.value = problemOf(error);
    });
  }
}

export async function more(): Promise<void> {
  const at = cursor.value;
  if (!at) return;
  const q = query.value.trim();
  try {
    const page = await og.products.list({ limit: 24, cursor: at, ...(q && { q }) }).page();
    if (cursor.value !== at) return;
    batch(() => {
      products.value = [...products.value, ...page.data];
      cursor.value = page.next_cursor;
      catalogueProblem.value = null;
    });
  } catch (error) {
    if (cursor.value === at && catalogue.value === 'ready') catalogueProblem.value = problemOf(error);
  }
}

export async function readStock(skus: Iterable<string>): Promise<void> {
  await Promise.all([...new Set(skus)].map(async (sku) => {
    try {
      const { available } = await quiet.inventory.get(sku, freshToken());
      if (stock.value.get(sku) !== available) stock.value = new Map(stock.value).set(sku, available);
    } catch {
      // The number stays as it was; the next look comes in 5 s.
    }
  }));
}

// The stock that is seen goes down by others' orders, too. While the gateway is away, one small request finds that it is back.
async function lookAround(): Promise<void> {
  if (access.value !== 'given' || document.visibilityState !== 'visible' || !navigator.onLine) return;
  if (!link.value.up) await quiet.products.list({ limit: 1 }).page().catch(() => undefined);
  if (!link.value.up) return;
  await readStock([...visible, ...basket.value.keys()].slice(0, 24));
}

function recover(): void {
  announce('The gateway answers again.');
  if (catalogue.value === 'failed') void search(query.value);
  follow(orderId.value, true);
  if (snapshotProblem.value) void look();
}
addEventListener('online', () => void lookAround());

// ---- the basket

interface Line { product: Product; quantity: number }
export const basket = signal<ReadonlyMap<string, Line>>(new Map(shop?.lines.map((line) => [line.product.sku, line])));
effect(() => {
  const now = { query: query.value, currency: currency.value, lines: [...basket.value.values()] };
  if (catalogue.value === 'ready') kept.write('shop', now);
});
export const priceOf = (product: Product) => product.prices.find((p) => p.currency === currency.value) ?? null;
export const total = computed(() => [...basket.value.values()].reduce((sum, { product, quantity }) => sum + (priceOf(product)?.amount ?? 0) * quantity, 0));

export function put(product: Product, quantity: number): void {
  const next = new Map(basket.value);
  if (quantity < 1) next.delete(product.sku);
  else next.set(product.sku, { product, quantity: Math.min(quantity, 10_000) });
  basket.value = next;
  announce(quantity < 1 ? `${product.name} taken out` : `${product.name}: ${quantity} in the basket`);
}

// ---- the order

export const orderId = signal<string | null>(null);
export const order = signal<Order | null>(null);
export const saga = signal<Saga | null>(null);
export const events = signal<Event[]>([]);
export const payments = signal<Payment[]>([]);
export const shipments = signal<Shipment[]>([]);
/** The tier that answered the last read of the order, and how old its answer was then, in s. */
export const served = signal<{ by: string; age: number } | null>(null);
/** Why the order cannot be shown, or what was refused last. */
export const problem = signal<Problem | null>(null);
/** The button whose request has no answer yet. */
export const busy = signal<string | null>(null);
/** How many orders were placed here. */
export const placings = signal(0);
/** Whether the stream of the order is open. */
export const live = signal(false);

const running = computed(() => saga.value !== null && saga.value.state !== 'done');

const idOfAddress = () => /^#(ord_[0-9a-f]{32})$/i.exec(location.hash)?.[1]?.toLowerCase() ?? null;
/** Whether there is something in the address that is no order's id. */
export const misaddressed = signal(false);

let following = new AbortController();

/** Shows an order, by its id in the address, and follows it: each event of its stream brings the order and its saga anew. */
export function follow(id: string | null, again = false): void {
  if (id === orderId.value && !again && id !== null) return;
  following.abort();
  following = new AbortController();
  reading = null;
  clearTimeout(sagaTimer);
  batch(() => {
    // A request that can be sent again outlives a lost connection: nothing else holds its key.
    if (id !== orderId.value || problem.value === readProblem) problem.value = null;
    if (id !== orderId.value) {
      sagaToken = null;
      order.value = saga.value = served.value = null;
      events.value = [];
      payments.value = [];
      shipments.value = [];
      snapshots.value = new Map();
      selected.value = null;
      snapshotProblem.value = null;
    }
    orderId.value = id;
    misaddressed.value = id === null && location.hash.length > 1;
  });
  if (misaddressed.value) announce('The address names no order.');
  if (idOfAddress() !== id) history.pushState(null, '', id ? `#${id}` : location.pathname);
  else if (id && location.hash !== `#${id}`) history.replaceState(null, '', `#${id}`);
  if (id) void watch(id, following.signal);
}

async function watch(id: string, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await refresh(id, signal);
  if (signal.aborted || order.value === null) return;
  try {
    live.value = true;
    const after = events.value.at(-1)?.sequence;
    for await (const event of og.orders.watch(id, { signal, ...(after !== undefined && { after }) })) {
      if (signal.aborted) return;
      if (event.sequence > (events.value.at(-1)?.sequence ?? 0)) events.value = [...events.value, event];
      if (/stock|cancelled|rejected|confirmed/.test(event.type)) void readStock(order.value.lines.map((l) => l.sku));
      void refresh(id, signal);
    }
  } catch (error) {
    if (signal.aborted) return;
    if (link.value.up) unread(error);
    if (isOrdergateError(error) && error.retryable) setTimeout(() => void watch(id, signal), 3000);
  } finally {
    if (!signal.aborted) live.value = false;
  }
}

interface Reading { again: boolean; done: Promise<void> }
let reading: Reading | null = null;

/** Reads the order and all that belongs to it. A change that comes meanwhile is read once more, with all others. */
function refresh(id: string, signal: AbortSignal): Promise<void> {
  if (reading) {
    reading.again = true;
    return reading.done;
  }
  const mine: Reading = { again: true, done: Promise.resolve() };
  reading = mine;
  mine.done = (async () => {
    while (mine.again && !signal.aborted) {
      mine.again = false;
      await read(id, signal);
    }
    if (reading === mine) reading = null;
  })();
  return mine.done;
}

async function read(id: string, signal: AbortSignal): Promise<void> {
  clearTimeout(sagaTimer);
  polling.abort();
  try {
    const o = await og.orders.get(id, { signal }); // first: of an order that is not there nothing else is asked
    const [s, p, sh] = await Promise.all([
      og.orders.saga(id, { signal }), og.orders.payments(id, {}, { signal }).page(), og.orders.shipments(id, {}, { signal }).page(),
    ]);
    if (signal.aborted || id !== orderId.value) return;
    const before = order.value && stateOf(order.value, saga.value).word;
    batch(() => {
      if (problem.value === readProblem) problem.value = null;
      takeSaga(s, og.meta(s)?.consistencyToken);
      order.value = o;
      const meta = og.meta(o);
      served.value = meta?.servedBy ? { by: meta.servedBy, age: meta.age ?? 0 } : null;
      payments.value = p.data;
      shipments.value = sh.data;
    });
    const { word } = stateOf(o, s);
    if (word !== before) announce(`The order is ${word.toLowerCase()}${o.rejection ? `: ${o.rejection.message}` : ''}.`);
    schedule(id, signal);
  } catch (error) {
    if (signal.aborted) return;
    if (order.value === null || link.value.up) unread(error);
    if (isOrdergateError(error) && error.code === 'ORD_001' && id === orderId.value) {
      following.abort();
      live.value = false;
    }
    if (isOrdergateError(error) && error.retryable && link.value.up) setTimeout(() => void (order.value ? refresh : watch)(id, signal), 3000);
  }
}

/** Why the order could not be read. It is gone as soon as the order is read. */
let readProblem: Problem | null = null;
function unread(error: unknown): void {
  readProblem = problemOf(error);
  if (!problem.value?.again) problem.value = readProblem;
}

/** The consistency token of the saga that is shown: an answer with a smaller one is older. */
let sagaToken: string | null = null;
function takeSaga(next: Saga, token: string | null = null): void {
  if (token && sagaToken && token < sagaToken) return;
  sagaToken = token ?? sagaToken;
  for (const step of next.steps) {
    const before = saga.value?.steps.find((s) => s.name === step.name && s.attempt === step.attempt);
    if (before && before.status !== step.status && step.status !== 'skipped') announce(`${stepLabel(step.name)}: ${step.status.replace('_', ' ')}`);
  }
  saga.value = next;
}

// Between two events nothing tells of a try: the saga is read every 400 ms while a step is under way. One such read is planned or sent at a time,
// and none while the order is read.
let sagaTimer: ReturnType<typeof setTimeout> | undefined;
let polling = new AbortController();
function schedule(id: string, following: AbortSignal): void {
  clearTimeout(sagaTimer);
  polling.abort();
  if (following.aborted || saga.value?.state === 'done') return;
  polling = new AbortController();
  const signal = AbortSignal.any([following, polling.signal]);
  sagaTimer = setTimeout(() => void readSaga(id, following, signal), 400);
}

async function readSaga(id: string, following: AbortSignal, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  try {
    if (link.value.up) {
      const next = await quiet.orders.saga(id, { signal, ...freshToken() });
      if (signal.aborted) return;
      takeSaga(next, quiet.meta(next)?.consistencyToken);
      if (next.state === 'done') {
        void refresh(id, following);
        return;
      }
    }
  } catch {
    // The next look tells.
  }
  if (!signal.aborted) schedule(id, following);
}

/** A request of a button, as a reload keeps it. */
type Write = { button: string; key: string; order: string | null } & (
  | { does: 'place'; draft: Parameters<typeof og.orders.place>[0] }
  | { does: 'cancel' | 'ship' | 'deliver'; id: string }
  | { does: 'pay'; id: string; token: string }
  | { does: 'refund'; id: string; amount: Money }
);

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

async function perform(write: Write): Promise<void> {
  const options = { idempotencyKey: write.key };
  if (write.does === 'place') {
    const placed = await og.orders.place(write.draft, options);
    announce('The order is placed.');
    follow(placed.id);
    placings.value++;
    return;
  }
  const { id, order } = write;
  try {
    switch (write.does) {
      case 'cancel': await og.orders.cancel(id, { reason: 'Cancelled in the console' }, options); break;
      case 'pay': await og.orders.pay(id, { method_token: write.token }, options); break;
      case 'ship': await og.orders.ship(id, undefined, options); break;
      case 'deliver': await og.shipments.deliver(id, options); break;
      case 'refund': await og.payments.refund(id, { reason: 'Refunded in the console', amount: write.amount }, { ...options, waitSeconds: 10 }); break;
    }
  } finally {
    // A final order's stream has ended, but a refund still adds an event to it.
    if (order !== null && order === orderId.value) void (live.value ? refresh(order, following.signal) : follow(order, true));
  }
}

/**
 * Sends the request of a button. A refusal is shown. A request that has no answer, or may succeed later, can be sent again under its key: it
 * happens once, however often that is done. It is kept before it is sent and until it is answered, so that a reload does not lose its key.
 */
async function send(button: string, prepare: () => Write | Promise<Write>): Promise<void> {
  if (busy.value) return;
  const shown = orderId.value;
  batch(() => {
    busy.value = button;
    problem.value = null;
  });
  let write: Write | null = null;
  try {
    write = await prepare();
    kept.write('write', write);
    await perform(write);
    kept.write('write', null);
  } catch (error) {
    const unanswered = isOrdergateError(error) && error.retryable ? write : null;
    if (!unanswered && write) kept.write('write', null);
    if (orderId.value === shown) problem.value = { ...problemOf(error), ...(unanswered && { again: () => void send(button, () => unanswered) }) };
  }
  busy.value = null;
}

/** Takes the refusal away, and with it the request that could be sent again. */
export function dismiss(): void {
  if (problem.value?.again) kept.write('write', null);
  problem.value = null;
}

export const place = (outcome: Outcome) => {
  const lines = [...basket.value.values()].map(({ product, quantity }) => ({ sku: product.sku, quantity }));
  const draft = { currency: currency.value, customer_ref: 'console', lines, ...(outcome.token && { payment: { method_token: outcome.token } }) };
  return send(outcome.id, async () => {
    if (outcome.id === 'out-of-stock') lines[0]!.quantity = (await og.inventory.get(lines[0]!.sku)).available + 1;
    return { button: outcome.id, key: newKey(), order: null, does: 'place', draft };
  });
};

const base = (button: Action) => ({ button, key: newKey(), order: orderId.value });
/** For the commands about the order that is shown; it is read afterwards in any case. */
const act = (does: 'cancel' | 'ship', id = orderId.value) => (id === null ? undefined : send(does, () => ({ ...base(does), does, id })));

export const cancel = () => act('cancel');
export const ship = () => act('ship');

export const pay = (token: string) => {
  const id = orderId.value;
  return id === null ? undefined : send('pay', () => ({ ...base('pay'), does: 'pay', id, token }));
};

export const deliver = () => {
  const shipment = shipments.value.find((s) => s.status !== 'delivered');
  return shipment && send('deliver', () => ({ ...base('deliver'), does: 'deliver', id: shipment.id }));
};

export const refund = (amount: number) => {
  const payment = refundable(payments.value)?.payment;
  return payment && send('refund', () => ({ ...base('refund'), does: 'refund', id: payment.id, amount: { amount, currency: payment.amount.currency } }));
};

/** Whether each action is allowed now, or why not. */
export const allowed = computed(() => {
  const o = order.value;
  if (!o) return null;
  const known = { order: o, saga: saga.value, payments: payments.value, shipments: shipments.value };
  return Object.fromEntries(Object.entries(verdicts).map(([name, verdict]) => [name, verdict(known)])) as Record<Action, ReturnType<(typeof verdicts)[Action]>>;
});

export const leftToRefund = computed(() => refundable(payments.value)?.left ?? 0);

// ---- time travel

/** The order after each of its events that was looked at. A past state never changes. */
export const snapshots = signal<ReadonlyMap<number, Order>>(new Map());
/** The version that is looked at; null: always the latest. */
export const selected = signal<number | null>(null);
export const version = computed(() => selected.value ?? events.value.at(-1)?.sequence ?? 0);
/** Why the version that is looked at, or the one before it, cannot be shown. */
export const snapshotProblem = signal<Problem | null>(null);

let looking = new AbortController();

/** Reads the version that is looked at and the one before it, unless they were read. */
export async function look(): Promise<void> {
  const id = orderId.value;
  looking.abort();
  const { signal } = (looking = new AbortController());
  snapshotProblem.value = null;
  for (const v of [version.value, version.value - 1]) {
    if (id === null || v < 1 || snapshots.value.has(v)) continue;
    try {
      const state = await og.orders.get(id, { version: v, signal });
      if (signal.aborted || id !== orderId.value) return;
      snapshots.value = new Map(snapshots.value).set(v, state);
    } catch (error) {
      if (signal.aborted || id !== orderId.value) return;
      snapshotProblem.value = problemOf(error);
    }
  }
}

/** For the tab of consistency: reads the order with the token that is held, and without one. */
export async function readTwice(id: string): Promise<void> {
  try {
    await og.orders.get(id, freshToken());
    await untokened().orders.get(id);
  } catch (error) {
    if (id === orderId.value) unread(error);
  }
}
