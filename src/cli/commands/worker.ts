import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import { openBullQueue, runWorker } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { integer, number } from "../numbers.js";
import { queueOption } from "../queueOptions.js";
import { defaultThreads } from "../threads.js";

interface WorkerCommandOptions extends CommonOptions {
  queue?: string;
  root: string;
  scratch?: string;
  concurrency: number;
  threads: number;
  once?: boolean;
  idleExit?: number;
  lockSeconds: number;
}

export const command: CommandDefinition<WorkerCommandOptions> = {
  description:
    "Does what lies in a queue: candidates of sweeps, cells of experiments, evaluations (--queue on sweep, experiment and eval). " +
    "The results are those of a run without a queue. Any number of workers share one. Ctrl-C puts what was begun back, and the job of a worker " +
    "that died is given to another. Models and texts are opened below --root only, and must be those that the one who asks has read.",
  options: [
    queueOption("where jobs come from"),
    new Option("--root <dir>", "where models and texts are looked for, as the sweep names them").default("."),
    new Option(
      "--scratch <dir>",
      "for models while they are measured (default: a folder of yours among temporary files)",
    ),
    new Option("--concurrency <n>", "jobs at the same time").argParser(integer({ min: 1, max: 256 })).default(1),
    new Option("--threads <n>", "CPU threads of a job")
      .argParser(integer({ min: 1, max: 256 }))
      .default(defaultThreads(), "one per physical core, at most 16"),
    new Option("--once", "end after one job"),
    new Option(
      "--idle-exit <seconds>",
      "end when no job has waited or been under way anywhere for so long (default: never)",
    ).argParser(number({ min: 0, max: 1e6 })),
    new Option(
      "--lock-seconds <n>",
      "a worker that says nothing for so long counts as dead, and its job is given to another",
    )
      .argParser(number({ min: 1, max: 86400 }))
      .default(30),
  ],
  examples: [
    "rarefy worker --queue redis://127.0.0.1:6379",
    "rarefy worker --queue redis://127.0.0.1:6379 --root /srv/models --concurrency 2 --threads 4 --idle-exit 60",
  ],
  async run(context, options) {
    const { root, concurrency, threads, once, idleExit, lockSeconds } = options;
    if (options.queue === undefined) throw new UsageError("give --queue redis://host:port");
    const { signal, onProgress } = context;
    const scratch = options.scratch ?? join(tmpdir(), `rarefy-worker-${userInfo().username}`);
    await using queue = await openBullQueue(options.queue, { lockMs: lockSeconds * 1000, signal });
    context.note(`waiting for jobs; models and texts below ${root}`);
    const counts = await runWorker(queue, {
      ...{ root, scratch, concurrency, threads, once, signal, onProgress },
      idleMs: idleExit === undefined ? undefined : idleExit * 1000,
      onTaken: ({ id }) => context.note(`job ${id.slice(0, 12)}`),
      onFailed: ({ id }, error) => context.complain(`job ${id.slice(0, 12)} failed: ${error.message}`),
    });
    signal.throwIfAborted();
    context.print(`${counts.done} jobs done, ${counts.failed} failed\n`);
    return counts;
  },
};
