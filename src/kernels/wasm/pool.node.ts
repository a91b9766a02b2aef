import { availableParallelism } from "node:os";
import { isMainThread, Worker } from "node:worker_threads";
import type { HostEvents } from "./host.js";

/** Threads that this machine runs at once. */
export const hardwareThreads = availableParallelism;

/** The same, or 1 in a thread that works beside others. */
export const freeThreads = () => (isMainThread ? availableParallelism() : 1);

/** Starts a worker thread of Node that does not keep the process alive. */
export function startNodeHost(program: string, { onMessage, onError }: HostEvents) {
  const worker = new Worker(program, { eval: true, execArgv: [] });
  let ended = false;
  worker.on("message", onMessage);
  worker.on("error", onError);
  worker.on("messageerror", onError);
  worker.on("exit", (code) => {
    if (!ended) onError(`it left with code ${code}`);
  });
  worker.unref();
  return {
    post: (message: unknown) => worker.postMessage(message),
    terminate: () => {
      ended = true;
      void worker.terminate();
    },
  };
}
