import type { StudioEvent } from "./protocol.js";

// Calls from the page to a worker, over one MessagePort: a request, any number of events, a result or an error.

/** Argument and result by the name of the call. */
type CallTable = Record<string, [unknown, unknown]>;
type Request = { id: number } & ({ cancel: true } | { name: string; argument: unknown });
type Answer = { id: number } & ({ event: StudioEvent } | { result: unknown } | { error: string; aborted: boolean });

export interface CallContext {
  readonly signal: AbortSignal;
  emit(event: StudioEvent, transfer?: Transferable[]): void;
}

export type Handlers<C extends CallTable> = {
  [N in keyof C]: (argument: C[N][0], context: CallContext) => Promise<C[N][1]>;
};

/** Answers what comes in through the port that the worker's first message brings. */
export function serve<C extends CallTable>(handlers: Handlers<C>): void {
  addEventListener("message", ({ ports: [port] }) => answer(port, handlers), { once: true });
}

function answer<C extends CallTable>(port: MessagePort, handlers: Handlers<C>): void {
  const running = new Map<number, AbortController>();
  port.onmessage = async ({ data }: MessageEvent<Request>) => {
    const { id } = data;
    if ("cancel" in data) {
      running.get(id)?.abort();
      return;
    }
    const controller = new AbortController();
    running.set(id, controller);
    const post = (answer: Answer, transfer: Transferable[] = []) => port.postMessage(answer, transfer);
    const emit: CallContext["emit"] = (event, transfer) => post({ id, event }, transfer);
    try {
      const handler = handlers[data.name] as (argument: unknown, context: CallContext) => Promise<unknown>;
      post({ id, result: await handler(data.argument, { signal: controller.signal, emit }) });
    } catch (error) {
      post({ id, error: (error as Error).message, aborted: controller.signal.aborted });
    } finally {
      running.delete(id);
    }
  };
}

export interface CallOptions {
  onEvent?: (event: StudioEvent) => void;
  signal?: AbortSignal;
}

/** Thrown by a call that its own signal ended. */
export class Stopped extends Error {}

/** The page's end of a worker, which it ends with. */
export class Client<C extends CallTable> {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, { settle: (answer: Answer) => void; reject: (reason: Error) => void }>();
  #nextId = 0;
  /** Why there are no more answers. */
  #ended: Error | undefined;

  constructor(readonly worker: Worker) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: MessageEvent<Answer>) => this.#waiting.get(data.id)?.settle(data);
    port1.onmessageerror = () =>
      this.end(new Error("an answer of the page's worker could not be read; reload the page"));
    // It could not be loaded, or threw outside of any call: nobody knows what state it is in.
    worker.addEventListener("error", ({ message }) => {
      const cause = message ? ` (${message})` : "";
      this.end(new Error(`the page's worker failed${cause}; reload the page`));
    });
    worker.postMessage(undefined, [port2]);
  }

  /** @throws Stopped when `signal` was aborted, Error with the worker's message otherwise, or why the worker has ended. */
  call<N extends keyof C & string>(
    name: N,
    argument: C[N][0],
    { onEvent, signal }: CallOptions = {},
  ): Promise<C[N][1]> {
    if (signal?.aborted) return Promise.reject(new Stopped("ended before it began"));
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const settle = (answer: Answer) => {
        if ("event" in answer) return onEvent?.(answer.event);
        this.#waiting.delete(id);
        if ("result" in answer) resolve(answer.result as C[N][1]);
        else reject(answer.aborted ? new Stopped(answer.error) : new Error(answer.error));
      };
      this.#waiting.set(id, { settle, reject });
      signal?.addEventListener("abort", () => this.#port.postMessage({ id, cancel: true } satisfies Request));
      this.#port.postMessage({ id, name, argument } satisfies Request);
    });
  }

  /** Ends the worker where it is. Calls that wait, and all later ones, fail with `reason`. */
  end(reason: Error): void {
    this.#ended ??= reason;
    this.worker.terminate();
    this.#port.close();
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}
