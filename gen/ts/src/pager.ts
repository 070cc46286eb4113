/** One page of a list. `next_cursor` is null on the last. */
export interface Page<T> {
  data: T[];
  next_cursor: string | null;
}

/** A list: `for await (const item of pager)` reads on, page by page; `page()` reads one page. Nothing is sent before either. */
export class Pager<T> implements AsyncIterable<T> {
  /** `read` gives the page at a cursor, or null if it is the one that `ifNoneMatch` names. */
  constructor(private readonly read: (cursor?: string, ifNoneMatch?: string) => Promise<Page<T> | null>) {}

  /** The page at the `cursor` that the list was asked for, or the first one. With `ifNoneMatch`: null if you hold it already. */
  page(): Promise<Page<T>>;
  page(options: { ifNoneMatch: string }): Promise<Page<T> | null>;
  page(options?: { ifNoneMatch: string }): Promise<Page<T> | null> {
    return this.read(undefined, options?.ifNoneMatch);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (let cursor: string | undefined; ; ) {
      const page = (await this.read(cursor))!;
      yield* page.data;
      if (page.next_cursor === null) return;
      cursor = page.next_cursor;
    }
  }
}
