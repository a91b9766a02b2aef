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

/** The page's end. */
export class Client<C extends CallTable> {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #nextId = 0;

  constructor(worker: Worker) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: MessageEvent<Answer>) => this.#waiting.get(data.id)?.(data);
    // A worker that could not be loaded, or ran out of memory, answers nothing more.
    worker.addEventListener("error", ({ message }) => {
      for (const [id, settle] of this.#waiting) settle({ id, error: message || "the worker failed", aborted: false });
    });
    worker.postMessage(undefined, [port2]);
  }

  /** @throws Stopped when `signal` was aborted, Error with the worker's message otherwise. */
  call<N extends keyof C & string>(
    name: N,
    argument: C[N][0],
    { onEvent, signal }: CallOptions = {},
  ): Promise<C[N][1]> {
    if (signal?.aborted) return Promise.reject(new Stopped("ended before it began"));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (answer) => {
        if ("event" in answer) return onEvent?.(answer.event);
        this.#waiting.delete(id);
        if ("result" in answer) resolve(answer.result as C[N][1]);
        else reject(answer.aborted ? new Stopped(answer.error) : new Error(answer.error));
      });
      signal?.addEventListener("abort", () => this.#port.postMessage({ id, cancel: true } satisfies Request));
      this.#port.postMessage({ id, name, argument } satisfies Request);
    });
  }
}
