import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { buildDirectory, directoryFiles, directorySinks, JobDirectory } from "../io/index.node.js";
import { readState, type State, writeState } from "../train/index.js";

const stateName = /^step-\d{9}$/;

/** A directory that holds the last stored state of a training run, whole at every moment. */
export class StateDirectory {
  readonly #job: JobDirectory;

  /** @param others names besides the states that a run keeps here */
  constructor(
    readonly directory: string,
    others: readonly string[] = [],
  ) {
    this.#job = new JobDirectory(directory, "training", (name) => stateName.test(name) || others.includes(name));
  }

  /** Looks without changing anything. @throws UsageError when the directory holds what no run put there */
  check(): Promise<void> {
    return this.#job.check();
  }

  /**
   * @returns undefined when nothing was stored
   * @throws FormatError; UsageError as `check`
   */
  async load(): Promise<State | undefined> {
    await this.#job.open();
    const last = (await this.#names()).at(-1);
    return last === undefined ? undefined : readState(directoryFiles(join(this.directory, last)));
  }

  /**
   * Stores a state under a new name, then forgets the one before. A run that went on and is stopped before its next step has
   * stored this one already.
   */
  async save(step: number, state: State): Promise<void> {
    const name = `step-${String(step).padStart(9, "0")}`;
    const stored = await this.#names();
    if (!stored.includes(name)) {
      const fill = (directory: string) => writeState(directorySinks(directory), state);
      await buildDirectory(join(this.directory, name), fill);
    }
    for (const other of stored) {
      if (other !== name) await rm(join(this.directory, other), { recursive: true, force: true });
    }
  }

  remove(): Promise<void> {
    return this.#job.remove();
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.directory)).filter((name) => stateName.test(name)).sort();
  }
}
