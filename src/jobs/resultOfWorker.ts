import { RarefyError } from "../core/index.js";
import type { Job, JobQueue } from "./jobQueue.js";

/**
 * What a worker made of a job. A result that is none is taken out of the queue, so that the same is computed anew when it is asked again.
 * @param what begins the message of a failure: "candidate wanda-50"
 * @throws RarefyError with what the worker says of its failure, and what `check` throws
 */
export async function resultOfWorker<T>(
  queue: JobQueue,
  job: Job,
  what: string,
  check: (raw: unknown) => T,
  signal?: AbortSignal,
): Promise<T> {
  let raw: unknown;
  try {
    raw = await queue.submit(job, signal);
  } catch (cause) {
    if (signal?.aborted || !(cause instanceof RarefyError)) throw cause;
    throw new RarefyError(`${what}: ${cause.message}`, { cause });
  }
  try {
    return check(raw);
  } catch (error) {
    await queue.forget(job.id);
    throw error;
  }
}
