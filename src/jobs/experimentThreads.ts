import { Worker } from "node:worker_threads";
import { FormatError, type JobOptions, RarefyError, UsageError } from "../core/index.js";
import type { Cell, CellResult, CellThreads } from "../train/index.js";
import type { Answer, Failure, FromThread, ThreadTask, ToThread } from "./experimentThread.js";

/** Worker threads that compute cells of one experiment, each with an engine of its own. */
export class ExperimentThreads implements CellThreads, AsyncDisposable {
  readonly #idle: Worker[] = [];
  readonly #all: Worker[] = [];

  /** Threads start when a cell needs one. */
  constructor(
    readonly count: number,
    readonly task: ThreadTask,
  ) {}

  async run(cell: Cell, { signal, onProgress }: JobOptions): Promise<CellResult> {
    const thread = this.#idle.pop() ?? this.#start();
    const stop = () => thread.postMessage("stop" satisfies ToThread);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      thread.postMessage({ cell } satisfies ToThread);
      const answer = await answerOf(thread, onProgress);
      this.#idle.push(thread);
      if ("result" in answer) return answer.result;
      signal?.throwIfAborted();
      throw errorOf(answer.failure);
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #start(): Worker {
    const thread = new Worker(new URL("./experimentThread.js", import.meta.url), { workerData: this.task });
    this.#all.push(thread);
    return thread;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((thread) => thread.terminate()));
  }
}

/** What a thread answers in the end. @throws what ended the thread instead */
function answerOf(thread: Worker, onProgress: JobOptions["onProgress"]): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void) => {
      thread.off("message", onMessage).off("error", onError).off("exit", onExit);
      end();
    };
    const onMessage = (message: FromThread) => {
      if ("progress" in message) onProgress?.(message.progress);
      else settle(() => resolve(message));
    };
    const onError = (error: Error) => settle(() => reject(error));
    const onExit = (code: number) => settle(() => reject(new RarefyError(`a thread ended with exit code ${code}`)));
    thread.on("message", onMessage).on("error", onError).on("exit", onExit);
  });
}

function errorOf(failure: Failure): Error {
  if (failure.type === "format") return new FormatError(failure.details);
  if (failure.type === "rarefy") {
    return failure.name === UsageError.name ? new UsageError(failure.message) : new RarefyError(failure.message);
  }
  return Object.assign(new Error(failure.message), { stack: failure.stack });
}
