import { describe, expect, test } from "vitest";
import type { OpenRequest } from "../../apps/studio/src/protocol.js";
import { type CallContext, Client, type Handlers, Stopped, serve } from "../../apps/studio/src/rpc.js";
import { Sessions } from "../../apps/studio/src/worker/sessions.js";

type Calls = { double: [number, number]; wait: [undefined, undefined] };

/** A worker whose messages come in here, so that its end can be played as well. */
class FakeWorker extends EventTarget {
  terminated = false;

  constructor(handlers: Handlers<Calls>) {
    super();
    // What `serve` listens to in a worker.
    const scope = new EventTarget();
    const own = globalThis.addEventListener;
    globalThis.addEventListener = scope.addEventListener.bind(scope) as typeof own;
    serve<Calls>(handlers);
    globalThis.addEventListener = own;
    this.#scope = scope;
  }
  readonly #scope: EventTarget;

  postMessage(_: undefined, ports: MessagePort[]): void {
    this.#scope.dispatchEvent(Object.assign(new Event("message"), { ports }));
  }

  terminate(): void {
    this.terminated = true;
  }

  fail(message?: string): void {
    this.dispatchEvent(Object.assign(new Event("error"), { message }));
  }
}

/** Never answers unless it is cancelled. */
const handlers: Handlers<Calls> = {
  double: async (number) => 2 * number,
  wait: (_, { signal }) =>
    new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
};

function started() {
  const worker = new FakeWorker(handlers);
  return { worker, client: new Client<Calls>(worker as unknown as Worker) };
}

describe("calls from the page to a worker", () => {
  test("are answered, and cancelled by their signals", async () => {
    const { client } = started();
    expect(await client.call("double", 21)).toBe(42);
    const controller = new AbortController();
    const waiting = client.call("wait", undefined, { signal: controller.signal });
    controller.abort();
    await expect(waiting).rejects.toThrow(Stopped);
    client.end(new Stopped("done"));
  });

  test("fail when the worker fails: those that wait, and those that come later", async () => {
    for (const [message, told] of [
      ["out of memory", "the page's worker failed (out of memory); reload the page"],
      [undefined, "the page's worker failed; reload the page"],
    ]) {
      const { worker, client } = started();
      const waiting = [client.call("wait", undefined), client.call("wait", undefined)];
      const failures = Promise.all(waiting.map((call) => expect(call).rejects.toThrow(told)));
      worker.fail(message);
      await failures;
      expect(worker.terminated).toBe(true);
      await expect(client.call("double", 1)).rejects.toThrow(told);
    }
  });

  test("end with a worker that is ended", async () => {
    const { worker, client } = started();
    const waiting = expect(client.call("wait", undefined)).rejects.toThrow(Stopped);
    client.end(new Stopped("ended in the middle of a step"));
    await waiting;
    expect(worker.terminated).toBe(true);
  });
});

describe("sessions of a worker", () => {
  /** Sessions that open when they are told to. */
  function opening() {
    const begun: { settle: (error?: Error) => void; disposed: boolean; request: OpenRequest }[] = [];
    const sessions = new Sessions(async (request) => {
      const one = { request, disposed: false, settle: (_error?: Error) => {} };
      begun.push(one);
      await new Promise<void>((resolve, reject) => {
        one.settle = (error) => (error ? reject(error) : resolve());
      });
      return {
        one,
        is: ({ device }: OpenRequest) => device === request.device,
        [Symbol.dispose]() {
          one.disposed = true;
        },
      };
    });
    return { begun, sessions };
  }
  const request = (device: OpenRequest["device"]): OpenRequest => ({ location: "tiny", device, base: "" });
  const context = (signal = new AbortController().signal): CallContext => ({ signal, emit() {} });
  const turn = () => new Promise((resolve) => setTimeout(resolve));

  test("two overlapping opens of one model give the same one", async () => {
    const { begun, sessions } = opening();
    const both = [sessions.open(request("cpu"), context()), sessions.open(request("cpu"), context())];
    await turn();
    begun[0].settle();
    const [first, second] = await Promise.all(both);
    expect(second).toBe(first);
    expect(begun).toHaveLength(1);
  });

  test("an open that overlaps another on another device closes what that one opened", async () => {
    const { begun, sessions } = opening();
    const both = [sessions.open(request("cpu"), context()), sessions.open(request("webgpu"), context())];
    await turn();
    begun[0].settle();
    await both[0];
    await turn();
    begun[1].settle();
    const second = await both[1];
    expect(sessions.get("tiny")).toBe(second);
    expect(begun.map(({ disposed }) => disposed)).toEqual([true, false]);
  });

  test("one that fails or was cancelled leaves the next its turn", async () => {
    const { begun, sessions } = opening();
    const failing = expect(sessions.open(request("cpu"), context())).rejects.toThrow("damaged");
    const cancelled = expect(sessions.open(request("cpu"), context(AbortSignal.abort()))).rejects.toThrow("abort");
    const third = sessions.open(request("cpu"), context());
    await turn();
    begun[0].settle(new Error("damaged"));
    await failing;
    await cancelled;
    await turn();
    begun[1].settle();
    const opened = await third;
    expect(sessions.get("tiny")).toBe(opened);
  });

  test("a model that is closed while it opens is closed once it is open; what is not kept is closed", async () => {
    const { begun, sessions } = opening();
    const open = sessions.open(request("cpu"), context());
    const closed = sessions.close("tiny");
    sessions.keep([]);
    await turn();
    begun[0].settle();
    await open;
    await closed;
    expect(begun[0].disposed).toBe(true);
    expect(() => sessions.get("tiny")).toThrow("tiny is not open");
    const again = sessions.open(request("cpu"), context());
    await turn();
    begun[1].settle();
    await again;
    sessions.keep(["tiny"]);
    expect(begun[1].disposed).toBe(false);
    sessions.keep([]);
    expect(begun[1].disposed).toBe(true);
  });
});
