import { readdir } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { UsageError } from "../../core/index.js";
import { makeDirectory } from "../makeDirectory.node.js";
import { foreignIn, notOurs, readMarker, removeOurs, writeMarker } from "./marker.node.js";
import { clearTemporaries, isTemporary } from "./temporaries.node.js";

/** A directory where a job lives until it is finished: known by its marker, so that none of the user's is ever taken for one. */
export class JobDirectory {
  /**
   * @param command what lives in it, in words
   * @param ours names of what the job puts there
   * @param isOurs whether a directory without a marker, of these names, was made by an earlier version
   */
  constructor(
    readonly path: string,
    readonly command: string,
    readonly ours: (name: string) => boolean,
    readonly isOurs?: (names: readonly string[]) => boolean,
  ) {}

  /**
   * Makes the directory, or goes on with the one of an earlier run; what a killed process was just writing is removed.
   * @throws UsageError for a directory that no job of this command made, or with files that it did not put there
   */
  async open(): Promise<void> {
    await makeDirectory(this.path);
    await this.check();
    await clearTemporaries(this.path, () => true);
    await this.clearBeside();
    if ((await readMarker(this.path)) === undefined) {
      await writeMarker(this.path, { state: "running", command: this.command });
    }
  }

  /**
   * Looks without changing anything; fine where there is no such directory, and where the job had finished and was killed before
   * its result got its name. @throws UsageError as `open`
   */
  async check(): Promise<void> {
    const names = await readdir(this.path).catch(() => []);
    if (names.length === 0) return;
    const marker = await readMarker(this.path);
    if (marker === undefined) {
      const foreign = names.find((name) => !isTemporary(name));
      if (foreign !== undefined && !this.isOurs?.(names)) throw notOurs(this.path, foreign);
    } else if (marker.state === "running" && marker.command !== this.command) {
      throw new UsageError(
        `${this.path} holds an unfinished job of ${marker.command}; finish it, remove it, or name another output`,
      );
    }
    const foreign = await foreignIn(this.path, this.ours);
    if (foreign !== undefined) throw notOurs(this.path, foreign);
  }

  /**
   * Removes what the job put there, and what a process that was killed as it did so has left; nothing to do where there is no such
   * directory. @throws UsageError as `open`
   */
  async remove(): Promise<void> {
    await this.check();
    await removeOurs(this.path, this.ours);
    await this.clearBeside();
  }

  /** Removes what lies beside the directory since a process was killed as it made or removed it. */
  clearBeside(): Promise<void> {
    return clearTemporaries(dirname(this.path), (of) => of === basename(this.path));
  }
}
