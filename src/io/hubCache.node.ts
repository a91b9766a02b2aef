import { readdir, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { linkOrCopyFile, writeFileAtomic } from "./atomic.node.js";
import { parseJson } from "./json.js";
import { makeDirectory } from "./makeDirectory.node.js";
import { temporaryBeside } from "./output/temporaries.node.js";
import { indexFileName, shardsOf, singleFileName } from "./placeTensors.js";

/** `org/name`, and a branch, tag or commit. */
export interface HubId {
  repository: string;
  revision: string;
}

/** Parses `org/name[@revision]`. @returns undefined for anything else, above all for what could leave the cache. */
export function parseHubId(text: string): HubId | undefined {
  const match = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.+/-]*))?$/.exec(text);
  if (match === null || /\.\.|--|\.git$|\/\/|\/$/.test(text)) return undefined;
  return { repository: match[1], revision: match[2] ?? "main" };
}

export const isCommit = (revision: string) => /^[0-9a-f]{40}$/.test(revision);

/**
 * One model in the cache that all Hugging Face tools share: files lie once under `blobs/`, named by their hash;
 * `snapshots/<commit>/` has symbolic links to them under their names; `refs/<branch>` holds a commit.
 */
export class HubCache {
  readonly root: string;
  /** What a download locks; the place is that of Python's locks. */
  readonly lock: string;

  constructor(cache: string, repository: string) {
    const name = `models--${repository.replace("/", "--")}`;
    this.root = join(cache, name);
    this.lock = join(cache, ".locks", name, "rarefy");
  }

  snapshot(commit: string): string {
    return join(this.root, "snapshots", commit);
  }

  blob(etag: string): string {
    return join(this.root, "blobs", etag);
  }

  /** The commit a revision stood for when it was last looked up. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = (await readFile(join(this.root, "refs", revision), "utf8").catch(() => "")).trim();
    return isCommit(text) ? text : undefined;
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (isCommit(revision)) return;
    const path = join(this.root, "refs", revision);
    await makeDirectory(dirname(path));
    await writeFileAtomic(path, new TextEncoder().encode(commit));
  }

  /** Gives a blob its name in a snapshot. */
  async place(commit: string, name: string, etag: string): Promise<void> {
    const path = join(this.snapshot(commit), name);
    await makeDirectory(dirname(path));
    const temporary = await temporaryBeside(path);
    try {
      await symlink(relative(dirname(path), this.blob(etag)), temporary);
    } catch {
      // Windows allows symbolic links to administrators and developers only.
      await linkOrCopyFile(this.blob(etag), temporary);
    }
    try {
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  /** Paths of all files of a snapshot, folders included. */
  async namesOf(commit: string): Promise<string[]> {
    const directory = this.snapshot(commit);
    const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(directory, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
  }

  /** Whether a snapshot has a config and all its weights. */
  async isComplete(commit: string): Promise<boolean> {
    const directory = this.snapshot(commit);
    if (!(await isFile(join(directory, "config.json")))) return false;
    if (await isFile(join(directory, singleFileName))) return true;
    const index = await readFile(join(directory, indexFileName)).catch(() => undefined);
    if (index === undefined) return false;
    const shards = [...shardsOf(parseJson(index, indexFileName), indexFileName).keys()];
    const found = await Promise.all(shards.map((shard) => isFile(join(directory, shard))));
    return found.every(Boolean);
  }
}

export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
