import { DeviceError } from "../../core/index.js";
import { controlBarrierPhase, controlFailed, leaveLoop } from "../program/layout.js";
import { type Host, type HostEvents, isNode } from "./host.js";
import type { KernelExports } from "./kernels.js";
import type { NativeKernels } from "./native.js";

/** Threads that could not be started or have ended. */
export class ThreadsError extends DeviceError {
  constructor(
    readonly reason: string,
    options?: { cause: unknown },
  ) {
    super(
      `a thread of the WebAssembly backend could not be started or has ended: ${reason}. Open the model again, with one thread if it recurs`,
      options,
    );
  }
}

/**
 * The whole program of a worker: it takes memories as they are made, and in between sits inside WebAssembly, asleep until
 * a ticket comes. It is text so that it needs neither a file of its own nor a bundler; no part of it comes from outside.
 */
const workerProgram = `
const instances = [];
const onMessage = ({ module, memory, index, thread, threads, spins, native }) => {
  let current = memory;
  try {
    if (module) {
      const kernels = new WebAssembly.Instance(module, {
        env: { memory, native: native ? attach(native, new Uint8Array(memory.buffer), thread, threads) : () => 0 },
      }).exports;
      kernels.configure(threads, 1, spins, native?.mask ?? 0);
      instances.push({ kernels, memory });
      post({ ready: instances.length });
      return;
    }
    for (;;) {
      const arena = instances[0].kernels.park();
      if (arena === ${leaveLoop}) return;
      const instance = instances[arena];
      current = instance.memory;
      instance.kernels.run(index);
    }
  } catch (error) {
    const words = new Int32Array(current.buffer);
    Atomics.store(words, ${controlFailed / 4}, 1);
    Atomics.add(words, ${controlBarrierPhase / 4}, 1);
    Atomics.notify(words, ${controlBarrierPhase / 4});
    post({ failed: String(error) });
  }
};`;

const nodeProgram = `
const { parentPort } = require("node:worker_threads");
const post = (m) => parentPort.postMessage(m);
const attach = ({ file, set, roundsTwice }, ...place) => require(file).open(set, roundsTwice).attach(...place);
${workerProgram}
parentPort.on("message", onMessage);`;

const browserProgram = `
const post = (m) => self.postMessage(m);
${workerProgram}
self.onmessage = (event) => onMessage(event.data);`;

/**
 * Worker threads that run the same programs as the calling thread. The calling thread is thread 0. Once one of them has failed,
 * all are ended, and every call throws why.
 */
export class Pool implements Disposable {
  readonly #hosts: Host[] = [];
  readonly #waiting: { resolve(): void; reject(reason: DeviceError): void }[] = [];
  #failure: ThreadsError | undefined;
  #kernels: KernelExports | undefined;
  #parked = false;

  /** Threads including the calling one. */
  get threads(): number {
    return this.#hosts.length + 1;
  }

  /** @throws ThreadsError when workers cannot be started */
  static async start(threads: number): Promise<Pool> {
    const pool = new Pool();
    try {
      for (let index = 1; index < threads; index++) {
        const onError = (cause: unknown) => pool.fail(cause);
        pool.#hosts.push(await startHost({ onMessage: (message) => pool.#onMessage(message), onError }));
      }
    } catch (cause) {
      pool.fail(cause);
    }
    pool.check();
    return pool;
  }

  /** Gives the workers another memory. The first one given is also where they wait. @throws ThreadsError when one cannot take it */
  async addMemory(
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    kernels: KernelExports,
    spins: number,
    native: NativeKernels | undefined,
  ): Promise<void> {
    this.check();
    this.#leave();
    const arrived = this.#hosts.map(
      () => new Promise<void>((resolve, reject) => this.#waiting.push({ resolve, reject })),
    );
    const { file, set, roundsTwice, mask } = native ?? {};
    const addon = native && { file, set, roundsTwice, mask };
    for (const [i, host] of this.#hosts.entries())
      host.post({ module, memory, thread: i + 1, threads: this.threads, spins, native: addon });
    // Workers do not keep a Node process alive, but somebody is waiting for them now.
    const awake = setInterval(() => {}, 1000);
    try {
      await Promise.all(arrived);
    } finally {
      clearInterval(awake);
    }
    this.#kernels ??= kernels;
    for (const [i, host] of this.#hosts.entries()) host.post({ index: i + 1 });
    this.#parked = this.#hosts.length > 0;
  }

  /** Lets the workers run the program in memory `arena`; the caller runs it too and meets them at its barriers. */
  wake(arena: number): void {
    if (this.#hosts.length > 0) this.#kernels?.wake(arena);
  }

  #leave(): void {
    if (this.#parked) this.#kernels?.wake(leaveLoop);
    this.#parked = false;
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  /** @throws ThreadsError once a thread has failed */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Ends all threads, because one of them has; from here on every call says so. */
  fail(cause: unknown): ThreadsError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    this.#failure ??= new ThreadsError(reason, { cause });
    this.#parked = false;
    for (const host of this.#hosts) host.terminate();
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
    return this.#failure;
  }

  #onMessage(message: unknown): void {
    if (typeof message !== "object" || message === null) return;
    if ("ready" in message) this.#waiting.shift()?.resolve();
    if ("failed" in message) this.fail(message.failed);
  }

  [Symbol.dispose](): void {
    this.#leave();
    for (const host of this.#hosts.splice(0)) host.terminate();
  }
}

async function startHost(events: HostEvents): Promise<Host> {
  if (isNode()) return (await import("./pool.node.js")).startNodeHost(nodeProgram, events);
  const url = URL.createObjectURL(new Blob([browserProgram], { type: "text/javascript" }));
  const worker = new Worker(url);
  worker.onmessage = (event) => events.onMessage(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    // A worker that a Content-Security-Policy blocks says nothing more.
    events.onError(event.message || "the page's Content-Security-Policy may lack worker-src blob:");
  };
  worker.onmessageerror = () => events.onError("a message could not be read");
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}

/** Threads that this machine runs at once; 1 where it does not tell. */
export async function hardwareThreads(): Promise<number> {
  if (isNode()) return (await import("./pool.node.js")).hardwareThreads();
  return globalThis.navigator?.hardwareConcurrency ?? 1;
}

/** The same, or 1 in a thread of Node.js that works beside others. */
export async function freeThreads(): Promise<number> {
  return isNode() ? (await import("./pool.node.js")).freeThreads() : hardwareThreads();
}
