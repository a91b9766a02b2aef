/** What lasts as long as a request: given back when its answer ended, or when the client went away. */
export class Scope implements Disposable {
  readonly #abort = new AbortController();
  readonly #held: Disposable[] = [];
  #closed = false;

  /** Aborted when nobody waits for the answer any more, or when it takes too long. */
  readonly signal: AbortSignal;

  /** @param outer of the client @param timeoutMs until a TimeoutError */
  constructor(outer: AbortSignal | undefined, timeoutMs: number) {
    const signals = [this.#abort.signal, ...(outer ? [outer] : [])];
    if (Number.isFinite(timeoutMs)) signals.push(AbortSignal.timeout(timeoutMs));
    this.signal = AbortSignal.any(signals);
  }

  hold<T extends Disposable>(held: T): T {
    if (this.#closed) held[Symbol.dispose]();
    else this.#held.push(held);
    return held;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#abort.abort(new DOMException("the request has ended", "AbortError"));
    for (const held of this.#held.reverse()) held[Symbol.dispose]();
  }
}
