import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** Threads that this machine runs at once. */
export const hardwareThreads = availableParallelism;

/** Starts a worker thread of Node that does not keep the process alive. */
export function startNodeHost(program: string, onMessage: (message: unknown) => void) {
  const worker = new Worker(program, { eval: true, execArgv: [] });
  worker.on("message", onMessage);
  worker.unref();
  return {
    post: (message: unknown) => worker.postMessage(message),
    terminate: () => void worker.terminate(),
  };
}
