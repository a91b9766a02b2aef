import { resolve } from "node:path";
import { quote, UsageError } from "../core/index.js";
import { evaluationJobKind, runEvaluationJob } from "./evaluationJob.js";
import { experimentJobKind, runExperimentJob } from "./experimentJob.js";
import type { WorkplaceOptions } from "./jobParts.js";
import type { Job, JobQueue, ProcessOptions } from "./jobQueue.js";
import { runSweepJob, sweepJobKind } from "./sweepJob.js";

/** What a worker works with. */
export interface WorkerOptions extends WorkplaceOptions, ProcessOptions {}

/** What a worker can do; another kind of work is a line here. */
const kinds: Readonly<Record<string, (job: Job, options: WorkplaceOptions) => Promise<object>>> = {
  [sweepJobKind]: runSweepJob,
  [experimentJobKind]: runExperimentJob,
  [evaluationJobKind]: runEvaluationJob,
};

/**
 * Does the jobs of a queue. What they say is not trusted: they are checked, and open only models and texts below `root`.
 * @returns how many were done and how many failed
 * @throws NetworkError when the queue is lost for good
 */
export async function runWorker(queue: JobQueue, options: WorkerOptions): Promise<{ done: number; failed: number }> {
  const { threads, onProgress } = options;
  const places = { root: resolve(options.root), scratch: resolve(options.scratch) };
  const counts = { done: 0, failed: 0 };
  await queue.process(
    async (job, signal) => {
      if (!Object.hasOwn(kinds, job.kind)) throw new UsageError(`this worker knows no work ${quote(job.kind)}`);
      return await kinds[job.kind](job, { ...places, threads, signal, onProgress });
    },
    {
      ...options,
      onDone(job) {
        counts.done++;
        options.onDone?.(job);
      },
      onFailed(job, error) {
        counts.failed++;
        options.onFailed?.(job, error);
      },
    },
  );
  return counts;
}
