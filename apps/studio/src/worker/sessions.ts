import type { OpenRequest } from "../protocol.js";
import type { CallContext } from "../rpc.js";

/** What is kept open: it knows whether it is what a request asks for. */
interface Kept extends Disposable {
  is(request: OpenRequest): boolean;
}

/** Models that are open, one for each location. Calls for the same location take turns, so that each finds what the last one left. */
export class Sessions<S extends Kept> {
  readonly #open = new Map<string, S>();
  /** The last call for a location; settled when all before it are. */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(readonly create: (request: OpenRequest, context: CallContext) => Promise<S>) {}

  /** The one that is open, or a new one in its place. @throws the signal's reason where it was cancelled meanwhile */
  open(request: OpenRequest, context: CallContext): Promise<S> {
    const { location } = request;
    return this.#inTurn(location, async () => {
      context.signal.throwIfAborted();
      const found = this.#open.get(location);
      if (found?.is(request)) return found;
      this.#close(location);
      const session = await this.create(request, context);
      this.#open.set(location, session);
      return session;
    });
  }

  /** @throws Error where it is not open */
  get(location: string): S {
    const session = this.#open.get(location);
    if (session === undefined) throw new Error(`${location} is not open`);
    return session;
  }

  /** Also one that is being opened, when it has been. */
  async close(location: string): Promise<void> {
    await this.#inTurn(location, async () => this.#close(location));
  }

  /** Closes all but these. One that is being opened is somebody's wish already. */
  keep(locations: readonly string[]): void {
    for (const location of this.#open.keys()) if (!locations.includes(location)) this.#close(location);
  }

  #close(location: string): void {
    this.#open.get(location)?.[Symbol.dispose]();
    this.#open.delete(location);
  }

  #inTurn<T>(location: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(location) ?? Promise.resolve();
    const own = before.then(work);
    // What failed is told to its caller; the next in turn begins all the same.
    this.#turns.set(
      location,
      own.catch(() => {}),
    );
    return own;
  }
}
