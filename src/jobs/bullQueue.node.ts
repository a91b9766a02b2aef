import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Job as BullJob, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { NetworkError, RarefyError, UsageError } from "../core/index.js";
import type { Job, JobQueue, ProcessOptions } from "./jobQueue.js";

/** Times of a queue in Redis. */
export interface BullQueueOptions {
  /** A worker that says nothing for so long counts as dead, and its job is given to another. Default 30 000. */
  lockMs?: number;
  signal?: AbortSignal;
}

/** One queue for all work: its kind is the name of a job. */
const queueName = "rarefy";
const pollMs = 250;
const connectMs = 10_000;
/** How long results are kept for sweeps that were stopped, in seconds. */
const kept = { age: 7 * 24 * 3600 };
/** How often a job may bring down its worker before it counts as failed. */
const maxStalledCount = 2;

/** The optional packages; a variable keeps bundlers from following them. */
async function load<T>(packageName: string): Promise<T> {
  try {
    return await import(/* @vite-ignore */ /* webpackIgnore: true */ /* turbopackIgnore: true */ packageName);
  } catch (cause) {
    throw new UsageError(`the optional package "${packageName}" did not load; npm install bullmq ioredis`, { cause });
  }
}

/**
 * A queue in Redis, which any number of processes and machines share.
 * @param url redis://[user:password@]host[:port][/database], rediss:// over TLS
 * @throws UsageError for another address, or without the optional packages bullmq and ioredis; NetworkError when there is no Redis
 */
export async function openBullQueue(
  url: string,
  { lockMs = 30_000, signal }: BullQueueOptions = {},
): Promise<JobQueue> {
  const place = placeOf(url);
  const { Redis } = await load<typeof import("ioredis")>("ioredis");
  const bull = await load<typeof import("bullmq")>("bullmq");
  const connection = await connect(Redis, url, place, signal);
  // A lost connection is taken up again; what waits for it goes on then.
  const queue = new bull.Queue(queueName, { connection });
  queue.on("error", () => {});

  async function submit({ id, kind, payload }: Job, signal?: AbortSignal): Promise<unknown> {
    if ((await queue.getJobState(id)) === "failed") await queue.remove(id);
    for (;;) {
      signal?.throwIfAborted();
      const state = await queue.getJobState(id);
      if (state === "unknown") {
        await queue.add(kind, payload, { jobId: id, removeOnComplete: kept, removeOnFail: kept });
      } else if (state === "completed" || state === "failed") {
        const job: BullJob | undefined = await queue.getJob(id);
        if (job !== undefined && state === "completed") return job.returnvalue;
        if (job !== undefined) throw new RarefyError(`${job.failedReason} (worker ${job.processedBy ?? "unknown"})`);
      }
      await sleep(pollMs, undefined, { signal });
    }
  }

  async function busy(): Promise<boolean> {
    const counts = await queue.getJobCounts("wait", "active", "delayed", "prioritized");
    return Object.values(counts).some((count) => count > 0);
  }

  async function work(
    doJob: (job: Job, signal?: AbortSignal) => Promise<unknown>,
    { concurrency = 1, once, idleMs, signal, onTaken, onDone, onFailed }: ProcessOptions = {},
  ): Promise<void> {
    const ended = new AbortController();
    const end = () => ended.abort();
    const stopped = signal === undefined ? ended.signal : AbortSignal.any([signal, ended.signal]);
    const jobOf = ({ id, name, data }: BullJob): Job => ({ id: id!, kind: name, payload: data });
    const worker: Worker = new bull.Worker(
      queueName,
      async (raw, token) => {
        const job = jobOf(raw);
        if (once) await worker.pause(true);
        onTaken?.(job);
        try {
          return await doJob(job, signal);
        } catch (error) {
          if (!signal?.aborted) throw error;
          await raw.moveToWait(token);
          throw new bull.WaitingError();
        }
      },
      {
        connection,
        autorun: false,
        concurrency: once ? 1 : concurrency,
        name: `${process.pid} on ${hostname()}`,
        lockDuration: lockMs,
        stalledInterval: lockMs,
        maxStalledCount,
      },
    );
    worker.on("error", () => {});
    worker.on("completed", (job) => {
      onDone?.(jobOf(job));
      if (once) end();
    });
    worker.on("failed", (job, error) => {
      if (job !== undefined) onFailed?.(jobOf(job), error);
      if (once) end();
    });
    const running = worker.run();
    running.catch(end);
    let lastBusyMs = performance.now();
    while (!stopped.aborted) {
      await sleep(pollMs, undefined, { signal: stopped }).catch(() => {});
      if (idleMs === undefined || stopped.aborted) continue;
      if (await busy()) lastBusyMs = performance.now();
      else if (performance.now() - lastBusyMs >= idleMs) end();
    }
    await worker.close();
    await running;
  }

  const close = async () => {
    await queue.close();
    connection.disconnect();
  };
  return {
    submit: (job, signal) => unless(submit(job, signal), signal),
    forget: async (id) => void (await queue.remove(id)),
    process: work,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The promise, or the signal's reason: without Redis a command to it waits until it is back. */
function unless<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** Host and port without what nobody else should read. @throws UsageError */
function placeOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !["redis:", "rediss:"].includes(parsed.protocol) || parsed.hostname === "") {
    throw new UsageError("a queue is named redis://host:port, or rediss://host:port over TLS");
  }
  return `${parsed.protocol}//${parsed.host}`;
}

async function connect(
  Client: typeof import("ioredis").Redis,
  url: string,
  place: string,
  signal: AbortSignal | undefined,
): Promise<Redis> {
  let connected = false;
  let reason: Error | undefined;
  const client = new Client(url, {
    lazyConnect: true,
    connectTimeout: connectMs,
    // What BullMQ asks for: commands wait for a connection that comes back.
    maxRetriesPerRequest: null,
    retryStrategy: (times) => (connected ? Math.min(times * 100, 2000) : null),
  });
  client.on("error", (error) => {
    reason = error;
  });
  try {
    await unless(client.connect(), signal);
    await unless(client.ping(), signal);
  } catch (cause) {
    client.disconnect();
    if (signal?.aborted) throw cause;
    const why = reason?.message || (cause as Error).message;
    throw new NetworkError(`${place}: no Redis answers (${why}); start one there, or give another \`queue\``, {
      cause,
    });
  }
  connected = true;
  return client;
}
