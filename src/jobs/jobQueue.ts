import { RarefyError } from "../core/index.js";

/** Work as it lies in a queue. Who takes it trusts nothing in it. */
export interface Job {
  /** SHA-256 over all that decides the result: a job that is given twice is done once. */
  id: string;
  /** Which work it is. */
  kind: string;
  /** JSON. */
  payload: unknown;
}

/** What is told of jobs as they are done; none of it comes from the queue but the id. */
export interface JobReports {
  onTaken?(job: Job): void;
  onDone?(job: Job): void;
  onFailed?(job: Job, error: Error): void;
}

/** How many jobs a worker takes, and until when. */
export interface ProcessOptions extends JobReports {
  /** Jobs at the same time. Default 1. */
  concurrency?: number;
  /** Return after one job. */
  once?: boolean;
  /** Return when no job has waited or been under way anywhere for this long. Default: never. */
  idleMs?: number;
  /** Jobs under way go back to the queue. */
  signal?: AbortSignal;
}

/** Jobs that one process gives and others do. */
export interface JobQueue extends AsyncDisposable {
  /**
   * Gives a job, unless one of its id is there, and waits for its result; one that failed before is given again. To stop waiting
   * does not stop the job.
   * @returns JSON that is to be checked
   * @throws RarefyError with the worker's message when the job failed; the signal's reason
   */
  submit(job: Job, signal?: AbortSignal): Promise<unknown>;
  /** Forgets a finished job, so that it can be done anew. */
  forget(id: string): Promise<void>;
  /**
   * Does jobs until it is told to stop. The job of a worker that died is given to another.
   * @param work what it returns is the job's result, as JSON; what it throws is told to whoever waits for it
   */
  process(work: (job: Job, signal?: AbortSignal) => Promise<unknown>, options?: ProcessOptions): Promise<void>;
  close(): Promise<void>;
}

/** A queue within this process, for tests and for programs that need no other machine. */
export function memoryQueue(): JobQueue {
  interface Place {
    job: Job;
    state: "waiting" | "taken" | "done" | "failed";
    result?: unknown;
    message?: string;
  }
  const places = new Map<string, Place>();
  const json = (value: unknown) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
  let listeners: (() => void)[] = [];
  const changed = () => {
    const told = listeners;
    listeners = [];
    for (const tell of told) tell();
  };
  /** Resolves at the next change, or after some time. */
  const change = (signal?: AbortSignal, ms?: number) =>
    new Promise<void>((resolve) => {
      listeners.push(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
      if (ms !== undefined) setTimeout(resolve, ms);
    });
  const busy = () => [...places.values()].some(({ state }) => state === "waiting" || state === "taken");

  const queue: JobQueue = {
    async submit(job, signal) {
      signal?.throwIfAborted();
      if (places.get(job.id)?.state === "failed") places.delete(job.id);
      for (;;) {
        const place = places.get(job.id);
        if (place?.state === "done") return json(place.result);
        if (place?.state === "failed") throw new RarefyError(place.message!);
        if (place === undefined) {
          places.set(job.id, { job: json(job), state: "waiting" });
          changed();
        }
        await change(signal);
        signal?.throwIfAborted();
      }
    },
    async forget(id) {
      places.delete(id);
    },
    async process(work, { concurrency = 1, once, idleMs, signal, onTaken, onDone, onFailed } = {}) {
      const take = async (place: Place) => {
        place.state = "taken";
        onTaken?.(place.job);
        try {
          place.result = json(await work(place.job, signal));
          place.state = "done";
          onDone?.(place.job);
        } catch (error) {
          place.state = signal?.aborted ? "waiting" : "failed";
          place.message = (error as Error).message;
          if (place.state === "failed") onFailed?.(place.job, error as Error);
        }
        changed();
      };
      const taker = async () => {
        while (!signal?.aborted) {
          const place = [...places.values()].find(({ state }) => state === "waiting");
          if (place !== undefined) {
            await take(place);
            if (once) return;
            continue;
          }
          await change(signal, idleMs);
          if (idleMs !== undefined && !busy()) return;
        }
      };
      await Promise.all(Array.from({ length: once ? 1 : concurrency }, taker));
    },
    async close() {},
    [Symbol.asyncDispose]: () => queue.close(),
  };
  return queue;
}
