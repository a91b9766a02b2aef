import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, UsageError } from "../core/index.js";
import { writeFileAtomic } from "../io/index.node.js";
import type { LogRecord, State, Training } from "../train/index.js";
import { isStateTree } from "../train/internal.js";
import { StateDirectory } from "./stateDirectory.js";

const logName = "log.jsonl";
const modelName = "model";

/** Where a run lives until its model is written: its job, the last stored state, the log. */
export class RunDirectory {
  readonly #states: StateDirectory;

  /** @param steps of the whole run */
  constructor(
    readonly directory: string,
    readonly steps: number,
  ) {
    this.#states = new StateDirectory(directory, [logName, modelName]);
  }

  get modelDirectory(): string {
    return join(this.directory, modelName);
  }

  /** Looks without changing anything. @throws UsageError when the directory holds what no run put there */
  check(): Promise<void> {
    return this.#states.check();
  }

  /**
   * The stored state of a run of the same job.
   * @throws UsageError when it is of another one, FormatError when it is damaged
   */
  async open(job: string): Promise<{ state: State; perplexityBefore?: number } | undefined> {
    const stored = await this.#states.load();
    if (stored === undefined) return undefined;
    if (stored.job !== job) {
      throw new UsageError(
        `${this.directory} holds a run with other settings; give the same options to go on, or remove it`,
      );
    }
    const { run, perplexityBefore } = stored;
    const wrong = (field: string, problem: string) =>
      new FormatError({ file: `${this.directory}/step-*/state.json`, field, problem, hint: "Remove it to begin anew" });
    if (!isStateTree(run)) throw wrong("run", "is missing");
    const { step } = run;
    if (typeof step !== "number" || !Number.isInteger(step) || step < 0 || step > this.steps) {
      throw wrong("run.step", `${String(step)}, of a run of ${this.steps} steps`);
    }
    if (perplexityBefore !== undefined && typeof perplexityBefore !== "number") {
      throw wrong("perplexityBefore", "is no number");
    }
    return { state: run, perplexityBefore };
  }

  save(job: string, training: Training, perplexityBefore: number | undefined): Promise<void> {
    return this.#states.save(training.step, {
      job,
      run: training.state,
      ...(perplexityBefore !== undefined && { perplexityBefore }),
    });
  }

  /**
   * The log as far as the stored state; what came after it will come again.
   * @throws FormatError when a step before it is missing
   */
  async openLog(step: number): Promise<RunLog> {
    const path = join(this.directory, logName);
    const text = await readFile(path, "utf8").catch(() => "");
    const lines = text.split("\n");
    const records: LogRecord[] = [];
    for (let i = 0; i < step; i++) {
      const record = parseRecord(lines[i]);
      if (record?.step !== i + 1) {
        throw new FormatError({
          file: path,
          field: `line ${i + 1}`,
          problem: "not the record of this step",
          hint: `Remove ${this.directory} to begin anew`,
        });
      }
      records.push(record);
    }
    return new RunLog(path, records);
  }

  remove(): Promise<void> {
    return this.#states.remove();
  }
}

/** @returns undefined for anything but a record */
function parseRecord(line: string | undefined): LogRecord | undefined {
  try {
    const value = JSON.parse(line ?? "");
    const metrics = Object.entries(value ?? {});
    const whole = ["step", "loss", "rate", "elapsedMs"].every((name) => typeof value?.[name] === "number");
    return whole && metrics.every(([, metric]) => metric === null || typeof metric === "number") ? value : undefined;
  } catch {
    return undefined;
  }
}

/** One JSON object per step, appended some at a time. */
class RunLog {
  /** Records that are in the file. */
  #written = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(
    readonly path: string,
    readonly records: LogRecord[],
  ) {}

  add(record: LogRecord): void {
    this.records.push(record);
    // A failure comes out at the last flush, which is awaited.
    if (this.records.length % 20 === 0) this.flush().catch(() => {});
  }

  /** One write after the other; a failed one is reported by the next. */
  flush(): Promise<void> {
    const write = async () => {
      const from = this.#written;
      this.#written = this.records.length;
      const lines = this.records.slice(from).map((record) => `${JSON.stringify(record)}\n`);
      // The first write replaces what lines of a killed run came after its stored state, and loses none when killed itself.
      if (from === 0) await writeFileAtomic(this.path, new TextEncoder().encode(lines.join("")));
      else await appendFile(this.path, lines.join(""));
    };
    this.#writing = this.#writing.then(write);
    return this.#writing;
  }
}
