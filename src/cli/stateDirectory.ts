import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { buildModelDirectory, directoryFiles } from "../io/index.node.js";
import { readState, type State, writeState } from "../train/index.js";

const stateName = /^step-\d{9}$/;

/** A directory that holds the last stored state of a training run, whole at every moment. */
export class StateDirectory {
  constructor(readonly directory: string) {}

  /** @returns undefined when nothing was stored. @throws FormatError */
  async load(): Promise<State | undefined> {
    await mkdir(this.directory, { recursive: true });
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
