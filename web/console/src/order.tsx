// The second pane: the order, its saga as it goes, and what can be done with it.
import { useEffect, useRef, useState } from 'preact/hooks';
import { money as amounts, type SagaStep } from '@ordergate/client';
import { link } from './api.js';
import { Badge, Code, Copy, duration, Mark, minor, money, Prose, Refusal, sends, short, time, useRefuge } from './parts.js';
import { cards, markOf, paymentWord, parcelWord, rowsOf, sentence, stateOf, statusWord, stepLabel, type Action, type Verdict } from './rules.js';
import * as s from './state.js';

export function OrderPane() {
  const pane = useRef<HTMLElement>(null);
  // Where the panes stand below each other, an order that was just placed is brought before the eyes.
  useEffect(() => {
    if (s.placings.value > 0 && matchMedia('(max-width: 719px)').matches) pane.current!.scrollIntoView();
  }, [s.placings.value]);
  return (
    <section class="pane order" ref={pane} aria-labelledby="order-title">
      <header>
        <h2 id="order-title">Order</h2>
        {s.orderId.value && <Copy text={() => s.orderId.value!} what="the order's id"><code>{short(s.orderId.value)}</code></Copy>}
        <span class="gap" />
        {s.served.value && <Badge {...s.served.value} />}
      </header>
      <div class="scroll body" tabIndex={0} role="region" aria-label="Order details">
        <Head />
        <Notice />
        <Steps />
        <Actions />
      </div>
    </section>
  );
}

function Head() {
  const order = s.order.value;
  if (!order && s.misaddressed.value) {
    return (
      <div class="head">
        <p class="state quiet long"><Mark of="failed" size={20} />The address names no order</p>
        <p class="facts">An order is at #ord_ and 32 characters of 0-9 and a-f.</p>
      </div>
    );
  }
  if (!order) {
    return (
      <div class="head">
        <p class="state quiet"><Mark of="waiting" size={20} />{s.orderId.value && !s.problem.value ? 'Reading the order' : s.orderId.value ? 'Not to be shown' : 'No order yet'}</p>
        <p class="facts">{s.orderId.value ? short(s.orderId.value) : 'Place one with the outcome that you want to see.'}</p>
      </div>
    );
  }
  const { mark, word } = stateOf(order, s.saga.value);
  return (
    <div class="head" data-status={order.status}>
      <p class="state"><Mark of={mark} size={20} />{word}<strong class="number">{money(order.total.amount, order.currency)}</strong></p>
      <p class="facts">{time(order.created_at)} · version {order.version} · {paymentWord(order)} · {parcelWord(order)}</p>
    </div>
  );
}

// One place, always as high, for what is to be said: a refusal, why the order was rejected, or what happens now.
function Notice() {
  const order = s.order.value;
  const rejection = order?.rejection;
  const shown = s.problem.value;
  const place = useRefuge<HTMLDivElement>();
  return (
    <div class="notice" ref={place}>
      {shown ? (
        <Refusal of={shown}>
          {shown.again && <button type="button" class="link" onClick={shown.again}>Send again under its key</button>}
          {order || !s.orderId.value ? <button type="button" class="link" onClick={s.dismiss}>Dismiss</button>
            : <button type="button" class="link" onClick={() => s.follow(s.orderId.value, true)}>Try again</button>}
        </Refusal>
      )
        : rejection ? (
          <div class="refusal">
            <p class="what"><Mark of="failed" /><Code of={rejection.code} /> <strong>{rejection.message}</strong></p>
            <p><Prose>{rejection.detail}</Prose>{rejection.decline_reason && <> It said <code>{rejection.decline_reason}</code>.</>}
              {rejection.skus?.map((k) => <> <code>{k.sku}</code>: {k.requested} ordered, {k.available} there.</>)}</p>
            <p class="trace"><Trace /></p>
          </div>
        ) : <p class="now">{order ? sentence({ order, saga: s.saga.value, payments: s.payments.value, shipments: s.shipments.value }) : s.misaddressed.value ? 'Check the address, or place an order.' : 'Its steps appear below, live, as the gateway takes them.'}</p>}
    </div>
  );
}

function Trace() {
  const id = s.events.value[0]?.cause.trace_id;
  return id ? <Copy text={() => id} what="id">trace <code>{id}</code></Copy> : null;
}

function took(step: SagaStep): string | null {
  if (!step.started_at) return null;
  const end = step.finished_at ? Date.parse(step.finished_at) : s.now.value;
  return duration(end - Date.parse(step.started_at));
}

function detailOf(step: SagaStep | null): string {
  if (!step) return '';
  const parts = [statusWord(step)];
  const ms = took(step);
  if (ms && step.status !== 'skipped') parts.push(ms);
  if (step.tries > 1) parts.push(`${step.tries} tries`);
  return parts.join(' · ');
}

function Steps() {
  const rows = rowsOf(s.saga.value);
  // The way back goes up from the last step that something came of to the first one that was taken back.
  const top = rows.findIndex((row) => row.back);
  const bottom = rows.findLastIndex((row) => row.back || row.forward?.status === 'failed');
  return (
    <div class="saga">
      <h3>Saga{top >= 0 && <span class="lane">Taken back</span>}</h3>
      <ol>
        {rows.map((row, index) => {
          const mark = markOf(row.forward, false);
          const code = row.forward?.last_error?.code;
          return (
            <li key={`${row.name}${row.forward?.attempt ?? 1}`} class={`step ${mark}${row.forward?.status === 'skipped' ? ' skipped' : ''}`} data-step={row.name} data-status={row.forward?.status ?? 'none'}>
              <span class="node"><Mark of={mark} /></span>
              <span class="text">
                <span class="name">{row.label}{code && <> <Code of={code} /></>}</span>
                <span class="detail">{row.forward ? detailOf(row.forward) : 'not planned yet'}</span>
              </span>
              <span class={`return${top >= 0 && index >= top && index < bottom ? ' lit' : ''}`}>
                {row.back && (
                  <span class="undo" data-step={row.back.name} data-status={row.back.status}>
                    <span class="node"><Mark of={markOf(row.back, true)} /></span>
                    <span class="text">
                      <span class="name">{stepLabel(row.back.name)}</span>
                      <span class="detail">{detailOf(row.back)}{row.back.last_error && <> · <Code of={row.back.last_error.code} /></>}</span>
                    </span>
                  </span>
                )}
              </span>
            </li>
          );
        })}
      </ol>
    </div>
  );
}

function Actions() {
  const verdicts = s.allowed.value;
  const [card, setCard] = useState('pm_ok');
  const currency = s.order.value?.currency ?? 'EUR';
  const left = s.leftToRefund.value;
  const [amount, setAmount] = useState('');
  useEffect(() => setAmount(left > 0 ? amounts.toMajor({ amount: left, currency }) : ''), [left, currency]);
  const wanted = minor(amount, currency);
  const good = wanted > 0 && wanted <= left;
  return (
    <div class="actions" role="group" aria-label="Actions">
      <Act name="pay" label={s.payments.value.some((p) => p.status === 'failed') ? 'Pay again' : 'Pay'} verdict={verdicts?.pay} run={() => s.pay(card)}>
        <select aria-label="Card" value={card} onChange={(e) => setCard(e.currentTarget.value)}>
          {cards.map((c) => <option key={c.token} value={c.token}>{c.name}</option>)}
        </select>
      </Act>
      <Act name="cancel" label="Cancel" verdict={verdicts?.cancel} run={s.cancel} />
      <Act name="ship" label="Ship" verdict={verdicts?.ship} run={s.ship} />
      <Act name="deliver" label="Deliver" verdict={verdicts?.deliver} run={s.deliver} />
      <Act name="refund" label="Refund" verdict={verdicts?.refund} run={() => s.refund(wanted)} bad={!good}>
        <input class="amount number" inputMode="decimal" aria-invalid={!good} aria-label={`Amount to refund, in ${currency}`} value={amount} onInput={(e) => setAmount(e.currentTarget.value)} />
        <span class="why">{good ? `of ${money(left, currency)}` : `An amount up to ${amounts.toMajor({ amount: left, currency })} ${currency}`}</span>
      </Act>
    </div>
  );
}

function Act({ name, label, verdict, run, bad = false, children }: { name: Action; label: string; verdict: Verdict | undefined; run: () => unknown; bad?: boolean; children?: preact.ComponentChildren }) {
  const off = !verdict?.allowed || bad || s.busy.value !== null || !link.value.up;
  const place = useRefuge<HTMLDivElement>();
  return (
    <div class="act" ref={place} data-action={name}>
      <button type="button" aria-describedby={`why-${name}`} aria-busy={s.busy.value === name} class={name === 'cancel' ? 'danger' : ''} {...sends(off, run)}>{label}</button>
      {verdict?.allowed && children ? <span class="with" id={`why-${name}`}>{children}</span> : (
        <span class="why" id={`why-${name}`}>{verdict ? <>{verdict.code && <><Code of={verdict.code} /> </>}{verdict.why}</> : 'There is no order.'}</span>
      )}
    </div>
  );
}
