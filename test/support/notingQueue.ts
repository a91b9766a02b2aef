import { type Job, type JobQueue, memoryQueue } from "../../src/jobs/index.js";

/** A queue that notes what is submitted. */
export function notingQueue(queue: JobQueue = memoryQueue()): JobQueue & { jobs: Job[] } {
  const jobs: Job[] = [];
  return {
    ...queue,
    jobs,
    submit(job, signal) {
      jobs.push(job);
      return queue.submit(job, signal);
    },
  };
}
