import { DeviceError } from "../../core/index.js";
import { leaveLoop } from "../program/layout.js";
import type { KernelExports } from "./kernels.js";

/** The few calls in which worker threads of Node and workers of browsers differ. */
interface Host {
  post(message: unknown): void;
  terminate(): void;
}

/**
 * The whole program of a worker: it takes memories as they are made, and in between sits inside WebAssembly, asleep until
 * a ticket comes. It is text so that it needs neither a file of its own nor a bundler; no part of it comes from outside.
 */
const workerProgram = `
const instances = [];
const onMessage = ({ module, memory, index, threads, spins }) => {
  if (module) {
    const kernels = new WebAssembly.Instance(module, { env: { memory } }).exports;
    kernels.configure(threads, 1, spins);
    instances.push(kernels);
    post({ ready: instances.length });
    return;
  }
  for (;;) {
    const arena = instances[0].park();
    if (arena === ${leaveLoop}) return;
    instances[arena].run(index);
  }
};`;

const nodeProgram = `
const { parentPort } = require("node:worker_threads");
const post = (m) => parentPort.postMessage(m);
${workerProgram}
parentPort.on("message", onMessage);`;

const browserProgram = `
const post = (m) => self.postMessage(m);
${workerProgram}
self.onmessage = (event) => onMessage(event.data);`;

/** Worker threads that run the same programs as the calling thread. The calling thread is thread 0. */
export class Pool implements Disposable {
  readonly #hosts: Host[] = [];
  readonly #ready: (() => void)[] = [];
  #kernels: KernelExports | undefined;
  #parked = false;

  /** Threads including the calling one. */
  get threads(): number {
    return this.#hosts.length + 1;
  }

  /** @throws DeviceError when workers cannot be started */
  static async start(threads: number): Promise<Pool> {
    const pool = new Pool();
    try {
      for (let index = 1; index < threads; index++) {
        pool.#hosts.push(await startHost((message) => pool.#onMessage(message)));
      }
    } catch (cause) {
      pool[Symbol.dispose]();
      throw new DeviceError("the threads of the WebAssembly backend could not be started; use one thread", { cause });
    }
    return pool;
  }

  /** Gives the workers another memory. The first one given is also where they wait. */
  async addMemory(
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    kernels: KernelExports,
    spins: number,
  ): Promise<void> {
    this.#leave();
    const arrived = this.#hosts.map(() => new Promise<void>((resolve) => this.#ready.push(resolve)));
    for (const host of this.#hosts) host.post({ module, memory, threads: this.threads, spins });
    // Workers do not keep a Node process alive, but somebody is waiting for them now.
    const awake = setInterval(() => {}, 1000);
    await Promise.all(arrived);
    clearInterval(awake);
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

  #onMessage(message: unknown): void {
    if (typeof message === "object" && message !== null && "ready" in message) this.#ready.shift()?.();
  }

  [Symbol.dispose](): void {
    this.#leave();
    for (const host of this.#hosts.splice(0)) host.terminate();
  }
}

async function startHost(onMessage: (message: unknown) => void): Promise<Host> {
  if (isNode()) return (await import("./pool.node.js")).startNodeHost(nodeProgram, onMessage);
  const url = URL.createObjectURL(new Blob([browserProgram], { type: "text/javascript" }));
  const worker = new Worker(url);
  worker.onmessage = (event) => onMessage(event.data);
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

const isNode = () => typeof process !== "undefined" && process.versions?.node !== undefined;
