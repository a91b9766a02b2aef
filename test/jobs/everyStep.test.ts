import { AsyncLocalStorage } from "node:async_hooks";
import type { FileHandle } from "node:fs/promises";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parseRecipe } from "../../src/compress/index.js";
import { createFile } from "../../src/io/byteSink.js";
import { directoryFiles, directorySinks, resolveModel, writeFilesAtomic } from "../../src/io/index.node.js";
import { claimOutput } from "../../src/io/output/claim.node.js";
import { writeSafetensors } from "../../src/io/safetensorsWriter.js";
import { compressToDirectory } from "../../src/jobs/compressToDirectory.js";
import { StateDirectory } from "../../src/jobs/stateDirectory.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/**
 * Every job is stopped at every single change that it makes to the file system, one after the other: no luck, no clock. The
 * file system under it counts the changes of a life, and at a given one the life ends (nothing that it does after that reaches
 * the disk) or the change fails.
 */

/** One run of a job, as a process of its own. */
class Life {
  static readonly all: Life[] = [];
  readonly tag = `abcdef-${1_000_000 + Life.all.length}-1`;
  readonly open = new Set<FileHandle>();
  changes = 0;
  /** Those that write bytes, by number. */
  readonly writes: number[] = [];
  dead = false;
  stopped!: () => void;
  readonly stop = new Promise<void>((resolve) => {
    this.stopped = resolve;
  });

  /** @param at the change where it ends; @param how killed before it, in the middle of a write, or told that it failed */
  constructor(
    readonly at = Number.POSITIVE_INFINITY,
    readonly how: "killed" | "killed midway" | "failed" = "killed",
  ) {
    Life.all.push(this);
  }

  /** A change is about to be made. @returns whether it is to be made by half */
  async change(): Promise<boolean> {
    if (this.dead) await new Promise(() => {});
    if (++this.changes !== this.at) return false;
    if (this.how === "failed") throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
    if (this.how === "killed midway") return true;
    return this.end();
  }

  async end(): Promise<never> {
    this.dead = true;
    this.stopped();
    return new Promise(() => {});
  }
}

const lives = vi.hoisted(() => ({ current: () => undefined as Life | undefined }));
const storage = new AsyncLocalStorage<Life>();
lives.current = () => storage.getStore();

vi.mock("../../src/io/output/process.node.js", async (importOriginal) => {
  const real = await importOriginal<typeof import("../../src/io/output/process.node.js")>();
  return {
    ...real,
    processTag: () => lives.current()?.tag ?? real.processTag(),
    livenessOf(tag: string) {
      const life = Life.all.find((each) => each.tag === tag);
      return life === undefined ? real.livenessOf(tag) : life.dead ? "dead" : "alive";
    },
  };
});

vi.mock("node:fs/promises", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:fs/promises")>();
  /** A change that is made whole or not at all. */
  const whole =
    <Args extends unknown[], Result>(make: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      const life = lives.current();
      if (await life?.change()) await life?.end();
      return make(...args);
    };
  const [unlink, rmdir] = [whole(real.unlink), whole(real.rmdir)];
  /** File by file, as it is done. */
  const remove = async (path: string): Promise<void> => {
    if ((await real.lstat(path)).isDirectory()) {
      for (const name of await real.readdir(path)) await remove(`${path}/${name}`);
      await rmdir(path);
    } else await unlink(path);
  };
  const handleOf = (handle: FileHandle, life: Life): FileHandle =>
    new Proxy(handle, {
      get(target, name) {
        const value = Reflect.get(target, name);
        if (name === "close") {
          life.open.delete(handle);
          return value.bind(target);
        }
        // Nobody pulls the plug here.
        if (name === "sync") return async () => {};
        if (name !== "write" && name !== "writeFile") return typeof value === "function" ? value.bind(target) : value;
        return async (data: Uint8Array | string, ...rest: unknown[]) => {
          life.writes.push(life.changes + 1);
          if (await life.change()) {
            const bytes = Buffer.from(data as Uint8Array);
            await real.writeFile(handle, bytes.subarray(0, bytes.length >> 1));
            await life.end();
          }
          return (value as (...args: unknown[]) => unknown).call(target, data, ...rest);
        };
      },
    });
  return {
    ...real,
    mkdir: whole(real.mkdir as (...args: unknown[]) => Promise<unknown>),
    rename: whole(real.rename),
    link: whole(real.link),
    copyFile: whole(real.copyFile),
    unlink,
    rmdir,
    async rm(path: string, options: { force?: boolean } = {}) {
      if (lives.current() === undefined) return real.rm(path, { ...options, recursive: true });
      const there = await real.lstat(path).catch(() => undefined);
      if (there !== undefined || options.force !== true) await remove(path);
    },
    async open(path: string, flags?: string, ...rest: []) {
      const life = lives.current();
      if (life === undefined) return real.open(path, flags, ...rest);
      if (flags !== undefined && flags !== "r") await whole(async () => {})();
      const handle = await real.open(path, flags, ...rest);
      life.open.add(handle);
      return handleOf(handle, life);
    },
  };
});

const root = await mkdtemp(join(tmpdir(), "rarefy-steps-"));
afterAll(() => rm(root, { recursive: true }));

/** A job and what it starts from; it gets a directory of its own for every life that it ends in. */
interface Job {
  prepare?(directory: string): Promise<void>;
  run(directory: string): Promise<unknown>;
  /** What a reader finds between the stop and the next run. Default: nothing is looked at. */
  read?(directory: string): Promise<unknown>;
}

/** Runs a job in a life of its own. @returns what it threw */
async function live(life: Life, work: () => Promise<unknown>): Promise<unknown> {
  const done = storage.run(life, () =>
    work().then(
      () => undefined,
      (error: unknown) => error ?? new Error("it threw nothing"),
    ),
  );
  const error = await Promise.race([done, life.stop]);
  life.dead = true;
  for (const handle of life.open) await handle.close().catch(() => {});
  return error;
}

/** By path, what every file holds. */
async function contentOf(directory: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const name of (await readdir(directory, { recursive: true })).toSorted()) {
    const text = await readFile(join(directory, name), "latin1").catch(() => "a directory");
    content[name] = text.replace(/"elapsedMs": ?[^}]*\}/g, "");
  }
  return content;
}

const kept = { "notes.txt": "the user's", ".out.tmp": "the user's too" };
let cases = 0;
async function place(job: Job): Promise<string> {
  const directory = join(root, String(cases++));
  await cp(await preparedBy(job), directory, { recursive: true });
  return directory;
}
const prepared = new Map<Job, Promise<string>>();
function preparedBy(job: Job): Promise<string> {
  if (!prepared.has(job)) {
    const make = async () => {
      const directory = await mkdtemp(join(root, "prepared-"));
      for (const [name, text] of Object.entries(kept)) await writeFile(join(directory, name), text);
      await job.prepare?.(directory);
      return directory;
    };
    prepared.set(job, make());
  }
  return prepared.get(job)!;
}

/** Stops a job at every change, runs it again, and compares. */
async function walk(job: Job): Promise<void> {
  const alone = await place(job);
  const before = await job.read?.(alone);
  const whole = new Life();
  expect(await live(whole, () => job.run(alone))).toBeUndefined();
  const expected = await contentOf(alone);
  const after = await job.read?.(alone);
  const every = Array.from({ length: whole.changes }, (_, i) => i + 1);
  const moments = { killed: every, "killed midway": whole.writes, failed: every } as const;
  for (const how of ["killed", "killed midway", "failed"] as const) {
    for (const at of moments[how]) {
      const directory = await place(job);
      const when = `${how} at change ${at} of ${whole.changes}`;
      await live(new Life(at, how), () => job.run(directory));
      if (job.read !== undefined) expect([before, after], when).toContainEqual(await job.read(directory));
      expect(await live(new Life(), () => job.run(directory)), `${when}, again`).toBeUndefined();
      expect(await contentOf(directory), when).toEqual(expected);
      await rm(directory, { recursive: true });
    }
  }
}

const read = async (directory: string) => {
  const found = await resolveModel(join(directory, "out")).catch(() => undefined);
  return found && contentOf(found.directory);
};

/** A job that builds its result in one go, as calibrate and export do. */
const build = async (directory: string, job: string) => {
  await using claimed = await claimOutput(join(directory, "out"), { force: true });
  const owner = { command: "calibrate", job };
  if (claimed.accept(owner)) return;
  await claimed.build(owner, async (built) => {
    for (const name of ["model.safetensors", "rarefy.json"])
      await createFile(directorySinks(built), name, (sink) => sink.write(new TextEncoder().encode(job)));
  });
};

/** A model of one layer. */
const source = join(root, "source");
beforeAll(async () => {
  const { config, tensors } = await MemoryCheckpoint.golden("llama");
  await mkdir(source);
  await writeFile(join(source, "config.json"), JSON.stringify({ ...config, num_hidden_layers: 1 }));
  const first = [...tensors.values()].filter(({ name }) => !name.includes("layers.1."));
  await writeSafetensors(
    directorySinks(source),
    first.map(({ bytes, ...tensor }) => ({ ...tensor, bytes: () => [bytes] })),
  );
});
/** A job that goes on from its blocks. */
const compress = async (directory: string, sparsity: number) => {
  const files = directoryFiles(source);
  const recipe = parseRecipe(
    { version: 1, stages: [{ type: "prune", method: "magnitude", pattern: sparsity }] },
    "test",
  );
  try {
    await compressToDirectory(files, join(directory, "out"), { recipe, store: "packed", force: true });
  } finally {
    await files.close();
  }
};

describe("stopped at every change to the file system", () => {
  it("a result that is built over another", async () => {
    await walk({ prepare: (directory) => build(directory, "old"), run: (directory) => build(directory, "new"), read });
  });

  it("a result that is made block by block and takes the place of another", async () => {
    const prepare = (directory: string) => compress(directory, 0.3);
    await walk({ prepare, run: (directory) => compress(directory, 0.5), read });
  });

  it("states of a training, the next one in place of the last", async () => {
    const states = (directory: string) => new StateDirectory(join(directory, "run"));
    const save = async (directory: string, step: number) => {
      await states(directory).load();
      await states(directory).save(step, { job: "a", step, weights: Float32Array.of(step, 2) });
    };
    await walk({
      prepare: (directory) => save(directory, 1),
      run: (directory) => save(directory, 2),
      read: (directory) => states(directory).load(),
    });
    // Ctrl-C before the first step of a run that went on.
    await walk({
      prepare: (directory) => save(directory, 1),
      run: (directory) => save(directory, 1),
      read: (directory) => states(directory).load(),
    });
  });

  it("several files: each is the old one or the new one, whole", async () => {
    const write = (directory: string, text: string) =>
      writeFilesAtomic(
        ["page.html", "page.json"].map((name) => [join(directory, name), new TextEncoder().encode(text)] as const),
      );
    await walk({
      prepare: (directory) => write(directory, "old ".repeat(50)),
      run: (directory) => write(directory, "new ".repeat(60)),
      read: async (directory) => {
        const texts = [
          await readFile(join(directory, "page.html"), "utf8"),
          await readFile(join(directory, "page.json"), "utf8"),
        ];
        return texts.map((text) => text === "old ".repeat(50) || text === "new ".repeat(60));
      },
    });
  });
});
