import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { BusyError, UsageError } from "../../core/index.js";
import { writeFileAtomic, writeFilesAtomic } from "../atomic.node.js";
import { directoryFiles } from "../file.node.js";
import { resolveModel } from "../hub.node.js";
import { checkOutput, claimOutput, removeOutput } from "./claim.node.js";
import { JobDirectory } from "./jobDirectory.node.js";
import { lockPath } from "./lock.node.js";
import { writeMarker } from "./marker.node.js";
import { livenessOf, processTag } from "./process.node.js";

const root = await mkdtemp(join(tmpdir(), "rarefy-output-"));
afterAll(() => rm(root, { recursive: true }));

let work: string;
beforeEach(async () => {
  work = await mkdtemp(join(root, "case-"));
});
const at = (...path: string[]) => join(work, ...path);
const names = async (...path: string[]) => (await readdir(at(...path))).toSorted();

/** The tag of a process that has ended. */
async function deadTag(): Promise<string> {
  const child = spawn(process.execPath, ["-e", ""]);
  const { pid } = child;
  await once(child, "exit");
  return processTag().replace(/-\d+-/, `-${pid}-`);
}

const made = { command: "prune", job: "a" };
const result = (job: string) => async (directory: string) => {
  await writeFile(join(directory, "rarefy.json"), job);
};

/** Makes a result at `out`. */
async function make(owner = made, force = false): Promise<boolean> {
  await using claimed = await claimOutput(at("out"), { force });
  if (claimed.accept(owner)) return false;
  await claimed.build(owner, result(owner.job));
  return true;
}

describe("who made a name", () => {
  it("tells the living from the dead, and a number that was given out again from its first owner", async () => {
    expect(livenessOf(processTag())).toBe("alive");
    expect(livenessOf(await deadTag())).toBe("dead");
    if (process.platform === "linux") expect(livenessOf(processTag().replace(/\d+$/, "17"))).toBe("dead");
    expect(livenessOf(processTag().replace(/^....../, "000000"))).toBe("elsewhere");
  });

  it("removes temporary files of dead processes, of the same name only", async () => {
    const dead = await deadTag();
    const left = [`.a.${dead}-0123abcd.tmp`, `.b.${dead}-0123abcd.tmp`, `.a.${processTag()}-0123abcd.tmp`];
    const users = [".a.tmp", ".a.12-0123abcd.tmp", "a.tmp"];
    for (const name of [...left, ...users]) await writeFile(at(name), "x");
    await writeFileAtomic(at("a"), new Uint8Array(3));
    expect(await names()).toEqual([...left.slice(1), ...users, "a"].toSorted());
  });

  it("writes several files or none", async () => {
    await writeFile(at("b"), "old");
    const files = ["a", "b", "missing/c"].map((name) => [at(name), new Uint8Array(3)] as const);
    await expect(writeFilesAtomic(files)).rejects.toThrow(/ENOENT/);
    expect([await names(), await readFile(at("b"), "utf8")]).toEqual([["b"], "old"]);
  });
});

describe("a lock", () => {
  it("is held by one of many that try at once, and given back", async () => {
    let holders = 0;
    let most = 0;
    const work = async () => {
      await using _lock = await lockPath(at("x"), { onWait: () => {} });
      most = Math.max(most, ++holders);
      await new Promise((resolve) => setTimeout(resolve, 5));
      holders--;
    };
    await Promise.all(Array.from({ length: 6 }, work));
    expect(most).toBe(1);
    expect(await names()).toEqual([]);
  });

  it("of another process is named; that of a dead one counts for nothing", async () => {
    const dead = `.x.lock-${await deadTag()}-0123abcd`;
    await writeFile(at(dead), "process 1\n");
    {
      await using _lock = await lockPath(at("x"));
      expect(await names()).toHaveLength(1);
      await expect(lockPath(at("x"))).rejects.toThrow(BusyError);
      await expect(lockPath(at("x"))).rejects.toThrow(/another process works on .*x \(.*\.x\.lock-/);
    }
    expect(await names()).toEqual([]);
  });

  it("can be waited for until the signal says no", async () => {
    await using _lock = await lockPath(at("x"));
    const controller = new AbortController();
    const waiting = lockPath(at("x"), { signal: controller.signal, onWait: () => controller.abort() });
    await expect(waiting).rejects.toThrow(/abort/);
  });
});

describe("a finished result", () => {
  it("is there for the same job, refused to others, replaced by force", async () => {
    expect(await make()).toBe(true);
    expect(await make()).toBe(false);
    await expect(make({ ...made, job: "b" })).rejects.toThrow(/finished result of prune with other settings/);
    await expect(make({ command: "calibrate", job: "b" })).rejects.toThrow(/finished result of prune; .*`force`/);
    expect(await readFile(at("out", "rarefy.json"), "utf8")).toBe("a");
    expect(await make({ command: "calibrate", job: "b" }, true)).toBe(true);
    expect(await readFile(at("out", "rarefy.json"), "utf8")).toBe("b");
    expect(await names()).toEqual(["out"]);
  });

  it("is not begun where what it is to be made of is missing", async () => {
    const missing = expect.objectContaining({ message: `there is no ${at("nowhere")} to read` });
    for (const look of [claimOutput(at("out"), { inputs: [at("nowhere")] }), checkOutput(at("out"), [at("nowhere")])]) {
      const error = await look.catch((error: unknown) => error);
      expect(error).toBeInstanceOf(UsageError);
      expect(error).toEqual(missing);
    }
    expect(await names()).toEqual([]);
  });

  it("may be begun anew by the same command", async () => {
    await make();
    await using claimed = await claimOutput(at("out"));
    expect(claimed.accept({ ...made, job: "b" }, { restart: true })).toBe(false);
    expect(() => claimed.accept({ command: "quantize", job: "b" }, { restart: true })).toThrow(UsageError);
  });

  it("of an earlier version is replaced by force, and only while all its files are ours", async () => {
    await mkdir(at("out"));
    for (const name of ["rarefy.json", "model-00001-of-00001.safetensors"]) await writeFile(at("out", name), "old");
    await expect(make()).rejects.toThrow(/an earlier version of rarefy/);
    await writeFile(at("out", "notes.txt"), "mine");
    await expect(make(made, true)).rejects.toThrow(/notes.txt was not put there by rarefy/);
    await rm(at("out", "notes.txt"));
    expect(await make(made, true)).toBe(true);
    expect(await names("out")).toEqual([".rarefy.json", "rarefy.json"]);
  });

  it("keeps what the user put beside it, whatever is asked for", async () => {
    await make();
    await mkdir(at("out", "notes"));
    for (const job of ["a", "b"]) {
      await expect(make({ ...made, job }, true)).rejects.toThrow(/notes was not put there by rarefy/);
    }
    await expect(removeOutput(at("out"))).rejects.toThrow(UsageError);
    await expect(checkOutput(at("out"))).rejects.toThrow(UsageError);
    expect(await names("out")).toEqual([".rarefy.json", "notes", "rarefy.json"]);
  });

  it("is locked while it is made", async () => {
    await using _claimed = await claimOutput(at("out"));
    await expect(make()).rejects.toThrow(BusyError);
  });
});

describe("a process killed while it replaced a result", () => {
  /** Leaves what a kill after so many of the renames leaves. */
  async function killedAfter(renames: number): Promise<void> {
    await make();
    await using claimed = await claimOutput(at("other"));
    await claimed.build({ ...made, job: "b" }, result("b"));
    await rename(at("other"), at(".out.rarefy-new"));
    if (renames > 1) await rename(at("out"), at(".out.rarefy-old"));
    if (renames > 2) await rename(at(".out.rarefy-new"), at("out"));
  }

  it.each([1, 2, 3])("after rename %i: the next run finds the new one, and nothing is left", async (renames) => {
    await killedAfter(renames);
    await using claimed = await claimOutput(at("out"));
    expect(claimed.accept({ ...made, job: "b" })).toBe(true);
    expect(await readFile(at("out", "rarefy.json"), "utf8")).toBe("b");
    expect((await names()).filter((name) => !name.includes(".lock-"))).toEqual(["out"]);
  });

  it.each([1, 2, 3])("after rename %i: a reader finds one of the two", async (renames) => {
    await killedAfter(renames);
    expect((await resolveModel(at("out"))).directory).toBe(at("out"));
    expect(await readFile(at("out", "rarefy.json"), "utf8")).toBe(renames === 1 ? "a" : "b");
  });

  it("never gives a reader files of both", async () => {
    await make();
    const files = directoryFiles(at("out"));
    await (await files.open("rarefy.json"))?.close();
    await make({ ...made, job: "b" }, true);
    await expect(files.open("rarefy.json")).rejects.toThrow(/another result has taken its place/);
    expect(await directoryFiles(at("out")).open("missing")).toBeUndefined();
  });

  it("leaves alone what only looks like it", async () => {
    await mkdir(at(".out.rarefy-new"));
    await writeFile(at(".out.rarefy-new", "thesis.txt"), "mine");
    await expect(make()).rejects.toThrow(/was not put there by rarefy/);
    expect(await names(".out.rarefy-new")).toEqual(["thesis.txt"]);
  });
});

describe("where a job lives", () => {
  const job = (command = "compress") => new JobDirectory(at("out.partial"), command, (name) => /^block/.test(name));

  it("is made with a marker, gone on with, and removed", async () => {
    await job().open();
    await writeFile(at("out.partial", "block-1"), "x");
    await writeFile(at("out.partial", `.block-2.${await deadTag()}-0123abcd.tmp`), "x");
    await job().open();
    expect(await names("out.partial")).toEqual([".rarefy.json", "block-1"]);
    await job().remove();
    await job().remove();
    expect(await names()).toEqual([]);
  });

  it("is gone on with where a kill came between the end of the job and its name", async () => {
    await job().open();
    await writeMarker(at("out.partial"), { state: "finished", command: "prune", job: "a", files: ["block-1"] });
    await job().check();
    await job().open();
    await writeFile(at(`.out.partial.${await deadTag()}-0123abcd.tmp`), "of a killed removal");
    await job().open();
    expect(await names()).toEqual(["out.partial"]);
    await job().remove();
    expect(await names()).toEqual([]);
    await writeFile(
      at(`.out.partial.${await deadTag()}-0123abcd.tmp`),
      "of a removal that was killed after the result had its name",
    );
    await job().remove();
    expect(await names()).toEqual([]);
  });

  it("is never a directory of the user's, nor one of another command", async () => {
    await mkdir(at("out.partial"));
    await writeFile(at("out.partial", "block-1"), "mine");
    await expect(job().open()).rejects.toThrow(/block-1 was not put there by rarefy/);
    await expect(job().remove()).rejects.toThrow(UsageError);
    await rm(at("out.partial", "block-1"));
    await job().open();
    await expect(job("training").open()).rejects.toThrow(/unfinished job of compress/);
    await writeFile(at("out.partial", "thesis.txt"), "mine");
    await expect(job().open()).rejects.toThrow(/thesis.txt was not put there/);
    await expect(job().remove()).rejects.toThrow(UsageError);
    expect(await names("out.partial")).toEqual([".rarefy.json", "thesis.txt"]);
  });
});
