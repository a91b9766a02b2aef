import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../core/index.js";
import { writeFileAtomic } from "../io/index.node.js";
import type { LogRecord, State, Training } from "../train/index.js";
import { StateDirectory } from "./stateDirectory.js";

const logName = "log.jsonl";
const modelName = "model";

/** Where a run lives until its model is written: settings, the last stored state, the log. */
export class RunDirectory {
  readonly #states: StateDirectory;

  constructor(
    readonly directory: string,
    readonly settings: Record<string, unknown>,
  ) {
    this.#states = new StateDirectory(directory, [logName, modelName]);
  }

  get modelDirectory(): string {
    return join(this.directory, modelName);
  }

  /** @returns the stored state of a run with the same settings. @throws UsageError when it has others */
  async open() {
    const state = await this.#states.load();
    if (state === undefined) return undefined;
    if (state.settings !== JSON.stringify(this.settings)) {
      throw new UsageError(
        `${this.directory} holds a run with other settings; give the same options to go on, or remove it`,
      );
    }
    const { perplexityBefore, run } = state as { perplexityBefore?: number; run: State };
    return { state: run, perplexityBefore };
  }

  save(training: Training, perplexityBefore: number | undefined): Promise<void> {
    return this.#states.save(training.step, {
      settings: JSON.stringify(this.settings),
      run: training.state,
      ...(perplexityBefore !== undefined && { perplexityBefore }),
    });
  }

  /** The log as far as the stored state; what came after it will come again. */
  async openLog(step: number): Promise<RunLog> {
    const path = join(this.directory, logName);
    const text = await readFile(path, "utf8").catch(() => "");
    const records = text
      .split("\n")
      .flatMap((line) => {
        try {
          return [JSON.parse(line) as LogRecord];
        } catch {
          return [];
        }
      })
      .filter((record) => record.step <= step);
    return new RunLog(path, records);
  }

  remove(): Promise<void> {
    return this.#states.remove();
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
