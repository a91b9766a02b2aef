import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { MessageChannel, Worker } from "node:worker_threads";
import { type JobOptions, UsageError } from "../core/index.js";
import { ggufFileName, type LocalModelFiles } from "../io/index.js";
import { ExpertRanks, portLink, type RankLink, type RankPort, type Structure } from "../model/index.js";
import type { WeightFormatId } from "../pack/index.js";
import { type RankKind, rankKinds } from "./rankKinds.js";
import { streamLink } from "./streamLink.js";

/** How experts are spread over ranks. */
export interface OpenExpertRanksOptions extends Pick<JobOptions, "signal"> {
  /** Ranks, the caller's own included: from 2 to as many as there are experts. */
  ranks: number;
  /** As the model is loaded with; default what `rarefy.json` names, else bf16. */
  weights?: WeightFormatId;
  structure?: Structure;
  /** CPU threads of each rank; default 1. */
  threads?: number;
  /** What a rank is; default "threads". */
  over?: RankKind;
}

/** What a rank is told when it starts. */
export interface RankTask extends Pick<OpenExpertRanksOptions, "ranks" | "weights" | "structure"> {
  rank: number;
  threads: number;
  /** Path of the directory or GGUF file. */
  model: string;
}

/** Ways to start a rank, with the link to it. */
const starters = {
  /** A worker thread, over a message port. */
  threads(task: RankTask): RankLink {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(new URL("./expertRankThread.js", import.meta.url), {
      workerData: { task, port: port2 },
      transferList: [port2],
    });
    // Node.js types its ports apart from those of browsers.
    const link = portLink(port1 as unknown as RankPort);
    return {
      ...link,
      listen(onFrame, onEnd) {
        worker.on("error", onEnd);
        worker.on("exit", () => onEnd());
        link.listen(onFrame, onEnd);
      },
      close() {
        link.close();
        void worker.terminate();
      },
    };
  },
  /** A process of its own, over its standard input and output. */
  processes(task: RankTask): RankLink {
    const entry = new URL("./expertRankProcess.js", import.meta.url);
    const child = spawn(process.execPath, [fileURLToPath(entry), JSON.stringify(task)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const link = streamLink(child.stdout, child.stdin);
    return {
      ...link,
      listen(onFrame, onEnd) {
        child.on("error", onEnd);
        link.listen(onFrame, onEnd);
      },
      close() {
        link.close();
        child.kill();
      },
    };
  },
} satisfies Record<RankKind, (task: RankTask) => RankLink>;

/**
 * Starts threads or processes that each load a share of a model's experts, for `expertRanks` of `openModel`. They load while
 * the model does. Disposing of them ends them.
 * @throws UsageError for fewer ranks than 2
 */
export function openExpertRanks(
  files: LocalModelFiles,
  { ranks, weights, structure, threads = 1, over = "threads", signal }: OpenExpertRanksOptions,
): ExpertRanks {
  if (!Number.isSafeInteger(ranks) || ranks < 2) throw new UsageError(`${ranks} expert ranks; take 2 or more`);
  if (!Object.hasOwn(starters, over)) {
    throw new UsageError(`expert ranks over ${over}; they are ${rankKinds.join(" or ")}`);
  }
  signal?.throwIfAborted();
  const start = starters[over];
  // A GGUF file has its config within.
  const model = files.pathOf("config.json") === undefined ? files.pathOf(ggufFileName)! : files.directory;
  return new ExpertRanks(
    Array.from({ length: ranks - 1 }, (_, r) => start({ rank: r + 1, ranks, weights, structure, threads, model })),
  );
}
