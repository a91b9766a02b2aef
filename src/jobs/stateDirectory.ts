import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../core/index.js";
import { buildModelDirectory, directoryFiles, makeDirectory } from "../io/index.node.js";
import { readState, type State, writeState } from "../train/index.js";

const stateName = /^step-\d{9}$/;
/** What a killed process was writing. */
const halfWritten = /^\..*\.tmp$/;

/** A directory that holds the last stored state of a training run, whole at every moment. */
export class StateDirectory {
  /** @param others names besides the states that a run keeps here */
  constructor(
    readonly directory: string,
    readonly others: readonly string[] = [],
  ) {}

  /**
   * @returns undefined when nothing was stored
   * @throws FormatError; UsageError when the directory holds what no run put there, since it is removed in the end
   */
  async load(): Promise<State | undefined> {
    await makeDirectory(this.directory);
    const names = await readdir(this.directory);
    const ours = (name: string) => stateName.test(name) || halfWritten.test(name) || this.others.includes(name);
    const foreign = names.find((name) => !ours(name));
    if (foreign !== undefined) {
      throw new UsageError(
        `${join(this.directory, foreign)} is no part of a training run; move it, or name another output`,
      );
    }
    for (const name of names.filter((name) => halfWritten.test(name))) {
      await rm(join(this.directory, name), { recursive: true });
    }
    const last = (await this.#names()).at(-1);
    return last === undefined ? undefined : readState(directoryFiles(join(this.directory, last)));
  }

  /** Stores a state under a new name, then forgets the one before. */
  async save(step: number, state: State): Promise<void> {
    const name = `step-${String(step).padStart(9, "0")}`;
    const target = join(this.directory, name);
    const old = (await this.#names()).filter((other) => other !== name);
    await rm(target, { recursive: true, force: true });
    await buildModelDirectory(target, [], ({ sinks }) => writeState(sinks, state));
    for (const other of old) await rm(join(this.directory, other), { recursive: true, force: true });
  }

  remove(): Promise<void> {
    return rm(this.directory, { recursive: true, force: true });
  }

  async #names(): Promise<string[]> {
    return (await readdir(this.directory)).filter((name) => stateName.test(name)).sort();
  }
}
