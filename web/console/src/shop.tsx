// The first pane: catalogue, basket, outcomes.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Product } from '@ordergate/client';
import { Mark, money, Refusal, sends, useChanged, useRefuge } from './parts.js';
import { outcomes } from './rules.js';
import * as s from './state.js';
import { link } from './api.js';

export function Shop() {
  return (
    <section class="pane shop" aria-labelledby="shop-title">
      <header>
        <h2 id="shop-title">Shop</h2>
        <Search />
        <select aria-label="Currency" value={s.currency.value} onChange={(e) => { s.currency.value = e.currentTarget.value; }}>
          {s.currencies.map((c) => <option key={c} value={c}>{c}</option>)}
        </select>
      </header>
      <Catalogue />
      <Basket />
      <Outcomes />
    </section>
  );
}

function Search() {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const type = (q: string) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void s.search(q), 200);
  };
  return <input type="search" class="search" aria-label="Search products by name or sku" placeholder="Search, say lamp" maxLength={64} defaultValue={s.query.peek()} onInput={(e) => type(e.currentTarget.value)} />;
}

function Catalogue() {
  const found = s.products.value;
  const place = useRefuge<HTMLDivElement>();
  return (
    <div class="scroll catalogue" ref={place} tabIndex={0} role="region" aria-label="Catalogue" aria-busy={s.catalogue.value === 'loading'}>
      {s.catalogue.value === 'failed' && s.catalogueProblem.value ? (
        <Refusal of={s.catalogueProblem.value}><button type="button" class="link" onClick={() => void s.search(s.query.value)}>Try again</button></Refusal>
      ) : found.length === 0 && s.catalogue.value === 'ready' ? (
        <p class="empty">No product has all of these words in its name or sku.</p>
      ) : (
        <table>
          <thead><tr><th scope="col">Product</th><th scope="col" class="number">Price</th><th scope="col" class="number">Stock</th><th><span class="sr">Basket</span></th></tr></thead>
          <tbody>
            {found.length === 0 ? [0, 1, 2, 3, 4, 5, 6].map((i) => <tr key={i} class="skeleton"><td colSpan={4}><i /><i /></td></tr>) : found.map((p) => <Row key={p.sku} product={p} />)}
          </tbody>
        </table>
      )}
      {s.catalogue.value === 'ready' && s.catalogueProblem.value && <Refusal of={s.catalogueProblem.value} />}
      {s.cursor.value && found.length > 0 && s.catalogue.value === 'ready' && <button type="button" class="more" onClick={() => void s.more()}>{s.catalogueProblem.value ? 'Try again' : 'Show more'}</button>}
    </div>
  );
}

let seen: IntersectionObserver | undefined;
const skus = new WeakMap<Element, string>();
function observer(): IntersectionObserver {
  seen ??= new IntersectionObserver((entries) => {
    const fresh: string[] = [];
    for (const entry of entries) {
      const sku = skus.get(entry.target)!;
      if (!entry.isIntersecting) s.visible.delete(sku);
      else {
        s.visible.add(sku);
        if (!s.stock.value.has(sku)) fresh.push(sku);
      }
    }
    if (fresh.length) void s.readStock(fresh);
  });
  return seen;
}

function Row({ product }: { product: Product }) {
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    const element = row.current!;
    skus.set(element, product.sku);
    observer().observe(element);
    return () => {
      observer().unobserve(element);
      s.visible.delete(product.sku);
    };
  }, [product.sku]);
  const price = s.priceOf(product);
  const stock = s.stock.value.get(product.sku);
  const inBasket = s.basket.value.get(product.sku)?.quantity ?? 0;
  const low = stock !== undefined && product.low_stock_at !== null && stock <= product.low_stock_at;
  const changed = useChanged(stock);
  return (
    <tr ref={row} data-sku={product.sku} title={product.description}>
      <td><span class="name">{product.name}</span><code>{product.sku}</code></td>
      <td class="number">{price ? money(price.amount, price.currency) : '—'}</td>
      <td class="number">
        <span class={`stock${low ? ' low' : ''}${changed}`} title={low ? 'Low stock' : undefined}>
          {stock === undefined ? '…' : stock.toLocaleString('en')}
          {low && <span class="sr"> low</span>}
        </span>
      </td>
      <td class="number">
        <button type="button" class="square" disabled={!price} aria-label={`Add ${product.name}${inBasket ? ` to the ${inBasket} in the basket` : ''}`} onClick={() => s.put(product, inBasket + 1)}>{inBasket ? <span class="count">{inBasket}</span> : <Plus />}</button>
      </td>
    </tr>
  );
}

const Plus = () => <svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true"><path d="M6 1v10M1 6h10" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" /></svg>;
const Minus = () => <svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true"><path d="M1 6h10" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" /></svg>;

function Basket() {
  const lines = [...s.basket.value.values()];
  const place = useRefuge<HTMLUListElement>();
  const [more, setMore] = useState(false);
  const measure = () => {
    const { scrollHeight, scrollTop, clientHeight } = place.current!;
    setMore(scrollHeight - scrollTop - clientHeight > 8);
  };
  useEffect(measure, [lines.length]);
  return (
    <div class="basket" role="region" aria-label="Basket">
      <ul class={`scroll${more ? ' fade' : ''}`} ref={place} tabIndex={lines.length > 2 ? 0 : -1} onScroll={measure}>
        {lines.length === 0 && <li class="empty">The basket is empty. Add a product with +.</li>}
        {lines.map(({ product, quantity }) => {
          const price = s.priceOf(product);
          return (
            <li key={product.sku}>
              <span class="name">{product.name}</span>
              <span class="stepper">
                <button type="button" class="square" aria-label={`One ${product.name} less`} onClick={() => s.put(product, quantity - 1)}><Minus /></button>
                <span class="quantity"><span class="sr">Quantity </span>{quantity}</span>
                <button type="button" class="square" aria-label={`One ${product.name} more`} onClick={() => s.put(product, quantity + 1)}><Plus /></button>
              </span>
              <span class="number">{price ? money(price.amount * quantity, price.currency) : '—'}</span>
            </li>
          );
        })}
      </ul>
      <p class="total"><span>Total <span class="facts">{lines.length} {lines.length === 1 ? 'product' : 'products'}</span></span><strong class="number">{money(s.total.value, s.currency.value)}</strong></p>
    </div>
  );
}

function Outcomes() {
  const off = s.basket.value.size === 0 || s.busy.value !== null || !link.value.up;
  return (
    <div class="outcomes" id="outcomes" role="group" aria-labelledby="outcomes-title">
      <h3 id="outcomes-title">Place the order with this outcome</h3>
      <div class="tiles">
        {outcomes.map((o) => (
          <button key={o.id} type="button" class="tile" data-outcome={o.id} aria-busy={s.busy.value === o.id} {...sends(off, () => s.place(o))}>
            <Mark of={o.end} size={14} />
            <span class="title">{o.name}</span>
            <span class="says">{o.says}</span>
          </button>
        ))}
      </div>
    </div>
  );
}
