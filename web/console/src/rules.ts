// The page's knowledge of orders: the ways that an order can end here, what can be done with one and the code that forbids it, and its
// state in words. Only the gateway decides; test/console.test.mjs asks it for each code that stands here.
import { money, type ErrorCode, type Order, type Payment, type Saga, type SagaStep, type Shipment } from '@ordergate/client';

export interface Outcome {
  id: string;
  name: string;
  /** The token of the payment method; null: the order is placed without payment. */
  token: string | null;
  end: Mark;
  says: string;
}

/** The five marks of a state. Each has a shape and a word beside its colour. */
export type Mark = 'waiting' | 'running' | 'done' | 'failed' | 'undone';

export const outcomes: Outcome[] = [
  { id: 'approve', name: 'Approve', token: 'pm_ok', end: 'done', says: 'Confirmed, one charge' },
  { id: 'decline', name: 'Decline', token: 'pm_declined', end: 'failed', says: 'PAY_007, stock returns' },
  { id: 'timeout', name: 'Time-out', token: 'pm_timeout', end: 'failed', says: 'Waits, then PAY_003' },
  { id: 'timeout-charged', name: 'Charged time-out', token: 'pm_timeout_charged', end: 'done', says: 'Answer lost, one charge' },
  { id: 'error', name: 'Provider error', token: 'pm_error', end: 'failed', says: 'Waits, then PAY_006' },
  { id: 'out-of-stock', name: 'Out of stock', token: 'pm_ok', end: 'failed', says: 'INV_002, one too many' },
  { id: 'slow', name: 'Slow', token: 'pm_slow', end: 'done', says: 'Confirmed after 2.5 s' },
  { id: 'later', name: 'Pay later', token: null, end: 'waiting', says: 'Held until you pay it' },
];

/** The cards that an order which waits can be paid with. */
export const cards = outcomes.filter((o) => o.token !== null && o.id !== 'out-of-stock') as (Outcome & { token: string })[];

export type Action = 'cancel' | 'pay' | 'refund' | 'ship' | 'deliver';

/** Whether an action is allowed now. `code` is what the gateway would answer; without one it would be taken and change nothing. */
export interface Verdict {
  allowed: boolean;
  code?: ErrorCode;
  why: string;
}

export interface Known {
  order: Order;
  saga: Saga | null;
  payments: Payment[];
  shipments: Shipment[];
}

const yes = (why: string): Verdict => ({ allowed: true, why });
const no = (code: ErrorCode, why: string): Verdict => ({ allowed: false, code, why });
const inFlight = (step: SagaStep) => step.status === 'running' || step.status === 'in_doubt';

export function unshipped(order: Order, shipments: Shipment[]): number {
  const pieces = (lines: { quantity: number }[]) => lines.reduce((sum, line) => sum + line.quantity, 0);
  return pieces(order.lines) - shipments.reduce((sum, shipment) => sum + pieces(shipment.lines), 0);
}

/** The payment that can be refunded, and how many minor units of it are left. */
export function refundable(payments: Payment[]): { payment: Payment; left: number } | null {
  const payment = payments.find((p) => p.status === 'captured');
  return payment ? { payment, left: payment.amount.amount - payment.refunded.amount } : null;
}

export const verdicts: Record<Action, (known: Known) => Verdict> = {
  cancel({ order, saga, shipments }) {
    if (order.status === 'cancelled') return no('ORD_007', 'It is cancelled already.');
    if (order.status === 'rejected' || order.status === 'completed') return no('ORD_002', `It is ${order.status}.`);
    if (shipments.length > 0 || order.fulfillment_status !== 'unfulfilled') return no('ORD_002', 'Its shipment is on the way.');
    if (saga?.steps.some((step) => step.name === 'capture' && inFlight(step))) return no('ORD_009', 'The charge is on its way.');
    if (order.cancel_requested_at) return { allowed: false, why: 'Asked for, and under way.' };
    return yes(order.status === 'confirmed' ? 'Money and stock go back.' : 'What is held is released.');
  },
  pay({ order, saga, payments }) {
    if (order.status === 'confirmed' || order.status === 'completed') return no('PAY_002', 'It is paid.');
    if (order.rejection?.code === 'INV_003') return no('INV_003', 'Its reservation ran out.');
    if (order.status !== 'reserved' || order.cancel_requested_at) return no('ORD_002', order.status === 'pending' ? 'Its stock is not held yet.' : `It is ${order.status}.`);
    const open = saga?.steps.some((step) => step.name !== 'reserve_stock' && (inFlight(step) || step.status === 'pending'));
    if (open || payments.some((p) => p.status !== 'failed')) return no('PAY_002', 'A payment is under way.');
    return yes('');
  },
  refund({ payments }) {
    const found = refundable(payments);
    if (!found) return no(payments.length ? 'RFD_003' : 'PAY_001', payments.length ? 'Nothing is captured.' : 'There is no payment.');
    if (found.left <= 0) return no('RFD_001', 'All of it is refunded.');
    return yes('');
  },
  ship({ order, shipments }) {
    if (order.status === 'cancelled' || (order.cancel_requested_at && order.status !== 'rejected')) return no('ORD_002', 'It is cancelled.');
    if (order.status === 'completed') return no('SHP_002', 'All of it is shipped.');
    if (order.status !== 'confirmed') return no('SHP_003', 'It is not paid.');
    if (unshipped(order, shipments) <= 0) return no('SHP_002', 'All of it is shipped.');
    if (order.payment_status === 'refunded') return no('SHP_003', 'All of it is refunded.');
    return yes('All that is unshipped.');
  },
  deliver({ shipments }) {
    if (shipments.length === 0) return no('SHP_001', 'There is no shipment.');
    if (shipments.every((s) => s.status === 'delivered')) return no('SHP_004', 'It has arrived.');
    return yes('The last one completes the order.');
  },
};

/** The state in words, and its mark. */
export function stateOf(order: Order, saga: Saga | null): { mark: Mark; word: string } {
  if (order.status === 'rejected') return { mark: 'failed', word: 'Rejected' };
  if (order.status === 'cancelled') return { mark: 'undone', word: 'Cancelled' };
  if (order.cancel_requested_at || saga?.state === 'compensating') return { mark: 'undone', word: order.cancel_requested_at ? 'Cancelling' : 'Taking back' };
  if (order.status === 'confirmed') return { mark: 'done', word: 'Confirmed' };
  if (order.status === 'completed') return { mark: 'done', word: 'Completed' };
  if (order.status === 'reserved') {
    const waits = saga !== null && !saga.steps.some((step) => inFlight(step) || step.status === 'pending');
    return waits ? { mark: 'waiting', word: 'Waits to be paid' } : { mark: 'running', word: 'Reserved' };
  }
  return { mark: 'running', word: order.status === 'pending' ? 'Pending' : order.status };
}

const moneyWords: Record<string, string> = {
  none: 'not charged', authorized: 'amount held', paid: 'paid', partially_refunded: 'refunded in part', refunded: 'refunded', failed: 'payment failed',
};
const parcelWords: Record<string, string> = { unfulfilled: 'not shipped', partial: 'shipped in part', shipped: 'shipped', delivered: 'delivered' };
export const paymentWord = (order: Order) => moneyWords[order.payment_status] ?? order.payment_status;
export const parcelWord = (order: Order) => parcelWords[order.fulfillment_status] ?? order.fulfillment_status;

/** One sentence about what happens now. */
export function sentence({ order, saga, payments }: Known): string {
  const doubt = saga?.steps.find((step) => step.status === 'in_doubt');
  if (doubt) return `The provider has not said yes or no. Try ${doubt.tries + 1} follows under the same key, so that nobody is charged twice.`;
  const running = saga?.steps.find((step) => step.status === 'running');
  if (running) return stepSentences[running.name] ?? 'A step is under way.';
  switch (order.status) {
    case 'pending': return 'Taken in. Its stock is being reserved.';
    case 'reserved':
      return order.payment_status === 'failed' ? 'The card failed and nothing is charged. Its stock is still held: try another card.' : 'Its stock is held until it is paid or its time is up.';
    case 'confirmed':
      if (order.fulfillment_status === 'shipped') return `On its way; it cannot be cancelled any more. ${refunds(order, payments) || 'It can be refunded.'}`;
      return refunds(order, payments) || 'Charged once, and its stock is taken. Ship it, refund it or cancel it.';
    case 'completed': return `Everything has arrived. ${refunds(order, payments) || 'A refund is still possible.'}`;
    case 'cancelled': return order.payment_status === 'refunded' ? 'The money went back, and the stock is on sale again.' : 'Nothing stands: no charge, no stock.';
    default: return '';
  }
}

/** How much went back; nothing if nothing did. */
function refunds(order: Order, payments: Payment[]): string {
  if (order.payment_status === 'refunded') return 'All of its money went back.';
  const back = payments.find((p) => p.refunded.amount > 0)?.refunded;
  return back ? `${money.format(back, 'en')} went back; the rest can still be refunded.` : '';
}

const stepSentences: Record<string, string> = {
  reserve_stock: 'All lines are held, or none.',
  authorize: 'The provider is asked to hold the amount.',
  confirm_stock: 'The held stock is taken. From here on the order goes forward.',
  capture: 'The provider is asked to charge the amount.',
  void: 'The provider is asked to release the held amount.',
  refund: 'The provider is asked to give the amount back.',
  cancel_reservation: 'The stock goes back on sale.',
};

export interface Row {
  forward: SagaStep | null;
  name: string;
  label: string;
  /** The step that takes this one back, if it was planned. */
  back: SagaStep | null;
}

const labels: Record<string, string> = {
  reserve_stock: 'Reserve stock', authorize: 'Authorize', confirm_stock: 'Confirm stock', capture: 'Capture', void: 'Void', refund: 'Refund',
  cancel_reservation: 'Release stock',
};
export const stepLabel = (name: string) => labels[name] ?? name;

const forwardNames = ['reserve_stock', 'authorize', 'confirm_stock', 'capture'];
const undoes: Record<string, string> = { void: 'authorize', refund: 'capture', cancel_reservation: 'reserve_stock' };

/** The saga as rows: the steps forward in their order, each with the step beside it that took it back. An order always has four rows at least. */
export function rowsOf(saga: Saga | null): Row[] {
  const steps = saga?.steps ?? [];
  const attempts = Math.max(1, ...steps.map((step) => step.attempt));
  const find = (name: string, attempt: number) => steps.find((step) => step.name === name && step.attempt === attempt) ?? null;
  const rows: Row[] = [];
  for (let attempt = 1; attempt <= attempts; attempt++) {
    for (const name of forwardNames) {
      const forward = find(name, attempt);
      if (attempt > 1 && !forward) continue;
      // A step that an earlier card left out says nothing: the later card did it.
      if (attempt < attempts && forward?.status === 'skipped') continue;
      rows.push({ forward, name, label: stepLabel(name) + (attempts > 1 && name !== 'reserve_stock' ? `, card ${attempt}` : ''), back: null });
    }
  }
  for (const step of steps) {
    const undone = undoes[step.name];
    if (!undone || step.status === 'skipped') continue;
    const row = rows.findLast((r) => r.name === undone && (r.forward?.attempt === step.attempt || undone === 'reserve_stock')) ?? rows.findLast((r) => r.name === undone);
    if (row) row.back = step;
  }
  return rows;
}

export function markOf(step: SagaStep | null, back: boolean): Mark {
  switch (step?.status) {
    case 'running': return back ? 'undone' : 'running';
    case 'in_doubt': return back ? 'undone' : 'running';
    case 'done': return back ? 'undone' : 'done';
    case 'failed': return 'failed';
    default: return 'waiting';
  }
}

const statusWords: Record<string, string> = { pending: 'waits', running: 'running', in_doubt: 'in doubt', done: 'done', failed: 'failed', skipped: 'not needed' };
export const statusWord = (step: SagaStep | null) => (step ? statusWords[step.status] ?? step.status : 'not planned');
