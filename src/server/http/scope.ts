/** What lasts as long as a request: given back when its answer ended, or when the client went away. */
export class Scope implements Disposable {
  readonly #abort = new AbortController();
  readonly #held: Disposable[] = [];
  readonly #timer: NodeJS.Timeout;
  #closed = false;

  /** @param client aborted when it goes away @param timeoutMs until a TimeoutError */
  constructor(
    readonly client: AbortSignal | undefined,
    timeoutMs: number,
  ) {
    this.#timer = setTimeout(() => {
      this.#abort.abort(new DOMException("the request took too long", "TimeoutError"));
    }, timeoutMs);
    this.#timer.unref();
    client?.addEventListener("abort", this.#gone, { once: true });
    if (client?.aborted) this.#gone();
  }

  /** Aborted when nobody waits for the answer any more, or when it takes too long. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  readonly #gone = (): void => this.#abort.abort(new DOMException("the client went away", "AbortError"));

  hold<T extends Disposable>(held: T): T {
    if (this.#closed) held[Symbol.dispose]();
    else this.#held.push(held);
    return held;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.client?.removeEventListener("abort", this.#gone);
    this.#abort.abort(new DOMException("the request has ended", "AbortError"));
    for (const held of this.#held.reverse()) held[Symbol.dispose]();
  }
}
