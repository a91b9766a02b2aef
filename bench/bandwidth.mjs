// How fast this machine reads memory: the ceiling of every decode, where each weight is read once for each token.
//
// Each thread compares two equal buffers with `Buffer.equals`, which is the C library's memcmp: native vector loads and next
// to no arithmetic. All threads start together; best of several passes, since anything else running only slows it down.

import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const passes = 5;

/** @returns bytes per second read by `threads` threads together. */
export async function readBandwidth(threads, { bytesPerThread = 2 ** 30 } = {}) {
  const barrier = new Int32Array(new SharedArrayBuffer(4 * passes));
  const elapsed = await Promise.all(
    Array.from({ length: threads }, () => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { threads, bytesPerThread, barrier } });
      return new Promise((done, fail) => worker.once("message", done).once("error", fail));
    }),
  );
  // A pass takes as long as its slowest thread.
  const slowest = Array.from({ length: passes }, (_, pass) => Math.max(...elapsed.map((times) => times[pass])));
  return (threads * bytesPerThread * 1000) / Math.min(...slowest);
}

function measure({ threads, bytesPerThread, barrier }) {
  // Written through, so that the pages exist.
  const [a, b] = [1, 1].map((value) => Buffer.alloc(bytesPerThread / 2, value));
  return Array.from({ length: passes }, (_, pass) => {
    Atomics.add(barrier, pass, 1);
    while (Atomics.load(barrier, pass) < threads);
    const started = performance.now();
    if (!a.equals(b)) throw new Error("equal buffers differ");
    return performance.now() - started;
  });
}

if (!isMainThread && workerData?.barrier) parentPort.postMessage(measure(workerData));
