/** One page of a list. `next_cursor` is null on the last. */
export interface Page<T> {
  data: T[];
  next_cursor: string | null;
}

/**
 * A list: `for await (const item of pager)` reads on, page by page; `page()` reads one page. Nothing is sent before either.
 *
 * @example
 * ```ts
 * for await (const order of og.orders.list({ status: 'confirmed' })) console.log(order.id);
 * ```
 */
export class Pager<T> implements AsyncIterable<T> {
  /**
   * `read` gives the page at a cursor, or null if it is the one that `ifNoneMatch` names; `repeated` is thrown for a list without an end; `first` is
   * the cursor that the list was asked for.
   */
  constructor(
    private readonly read: (cursor?: string | null, ifNoneMatch?: string) => Promise<Page<T> | null>,
    private readonly repeated: () => Error,
    private readonly first?: string | null,
  ) {}

  /**
   * The page at the `cursor` that the list was asked for, or the first one. With `ifNoneMatch`: null if you hold it already.
   *
   * @example
   * ```ts
   * const first = await og.orders.list({ limit: 50 }).page();
   * const second = first.next_cursor === null ? null : await og.orders.list({ limit: 50, cursor: first.next_cursor }).page();
   * ```
   */
  page(options?: { ifNoneMatch?: undefined }): Promise<Page<T>>;
  page(options: { ifNoneMatch?: string | undefined }): Promise<Page<T> | null>;
  page(options: { ifNoneMatch?: string | undefined } = {}): Promise<Page<T> | null> {
    return this.read(this.first, options.ifNoneMatch);
  }

  /** Every item, from the page at the `cursor` that the list was asked for. A list that repeats a cursor has no end: the error says so. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    const seen = new Set<unknown>([this.first]);
    for (let cursor = this.first; ; ) {
      const page = (await this.read(cursor))!;
      yield* page.data;
      if (!page.next_cursor) return;
      cursor = page.next_cursor;
      if (seen.has(cursor)) throw this.repeated();
      seen.add(cursor);
    }
  }
}
