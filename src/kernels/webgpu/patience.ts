/** Waits that the estimate is made of. */
const remembered = 8;

/** A timer of Node.js comes up to a millisecond late, and a little more. */
const latenessMs = 1.25;

/** What is there as soon as it is asked for was waited for too long. */
const noWaitMs = 0.5;

/**
 * Sleeps through most of a wait that would cost a processor: in Node.js, Dawn asks the GPU again and again whether it is done.
 * Tokens of a sequence take about as long one after another, so the shortest of the last waits, less what a timer comes late,
 * is slept; the rest is asked for. Only for waits whose end nobody else is held up by, as it may be missed by a moment.
 */
export class Patience {
  readonly #waitsMs: number[] = [];

  constructor(
    readonly sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
    readonly now = () => performance.now(),
  ) {}

  async wait<T>(arrives: () => Promise<T>): Promise<T> {
    const begunMs = this.now();
    const expectedMs = this.#waitsMs.length < remembered ? 0 : Math.min(...this.#waitsMs);
    const sleepMs = Math.floor(expectedMs - latenessMs);
    if (sleepMs >= 1) await this.sleep(sleepMs);
    const sleptMs = this.now() - begunMs;
    const result = await arrives();
    const waitedMs = this.now() - begunMs;
    const missed = sleepMs >= 1 && waitedMs - sleptMs < noWaitMs;
    // How long it took is not known then: it is measured anew.
    if (missed) this.#waitsMs.length = 0;
    else this.#waitsMs.push(waitedMs);
    if (this.#waitsMs.length > remembered) this.#waitsMs.shift();
    return result;
  }
}
