/** Values from one who never waits to one who does. What has been put in is delivered before an end or an error. */
export class Channel<T> implements AsyncIterableIterator<T, undefined> {
  readonly #values: T[] = [];
  #end: { error?: unknown } | undefined;
  #wake: (() => void) | undefined;

  /** @param onReturn called when the reader stops before the end */
  constructor(readonly onReturn: () => void = () => {}) {}

  put(value: T): void {
    if (this.#end !== undefined) return;
    this.#values.push(value);
    this.#wake?.();
  }

  end(): void {
    this.#end ??= {};
    this.#wake?.();
  }

  fail(error: unknown): void {
    this.#end ??= { error };
    this.#wake?.();
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#values.length === 0 && this.#end === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#values.length > 0) return { done: false, value: this.#values.shift()! };
    const { error } = this.#end!;
    if (error !== undefined) throw error;
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#values.length = 0;
    if (this.#end === undefined) this.onReturn();
    this.#end ??= {};
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
