import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
// @ts-expect-error: plain JavaScript, shared with the scripts
import { gguf, ggufFile } from "../../scripts/mutation/seeds.mjs";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { directoryFiles } from "../../src/io/file.node.js";
import { resolveModel } from "../../src/io/hub.node.js";
import { buildModelDirectory } from "../../src/io/modelDirectory.node.js";

const count = 3;
const name = (part: number) => `m-0000${part + 1}-of-0000${count}.gguf`;
let directory: string;

function partOf(part: number, change: object = {}): Uint8Array {
  const split = { "split.no": [2, part], "split.count": [2, count], "split.tensors.count": [5, gguf.tensors.length] };
  const metadata = { ...(part === 0 ? gguf.metadata : {}), ...split, ...change };
  return ggufFile({ ...gguf, metadata, tensors: gguf.tensors.filter((_: unknown, i: number) => i % count === part) });
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "rarefy-parts-"));
  for (let part = 0; part < count; part++) await writeFile(join(directory, name(part)), partOf(part));
  await writeFile(join(directory, "whole.gguf"), ggufFile(gguf));
});
afterAll(() => rm(directory, { recursive: true }));

async function tensorsOf(path: string) {
  const checkpoint = await openCheckpoint(await resolveModel(path));
  const values = new Map<string, string>();
  for (const tensor of checkpoint.tensors.keys())
    values.set(tensor, Buffer.from(await checkpoint.read(tensor)).toString("hex"));
  await checkpoint.close();
  return values;
}

it("any part stands for the whole model", async () => {
  const whole = await tensorsOf(join(directory, "whole.gguf"));
  for (let part = 0; part < count; part++) {
    const found = await tensorsOf(join(directory, name(part)));
    expect(new Set(found.keys())).toEqual(new Set(whole.keys()));
    for (const [tensor, values] of whole) expect(found.get(tensor), tensor).toBe(values);
  }
});

it("a model made from parts keeps them", async () => {
  const files = await resolveModel(join(directory, name(0)));
  const output = join(directory, "made");
  await buildModelDirectory(output, [], async (builder) => {
    await builder.takeOver(files);
    await builder.add("rarefy.json", new TextEncoder().encode('{"rarefy":1}'));
  });
  expect((await directoryFiles(output).names()).toSorted()).toContain(`model-0000${count}-of-0000${count}.gguf`);
  expect((await tensorsOf(output)).size).toBe(gguf.tensors.length);
});

it("says which part is missing or is another's", async () => {
  const other = await mkdtemp(join(tmpdir(), "rarefy-parts-"));
  await writeFile(join(other, name(0)), partOf(0));
  const read = () => tensorsOf(join(other, name(0)));
  await expect(read()).rejects.toThrow(
    /split.count: it is part 1 of 3, and part 2 is not beside it\. Download all parts/,
  );
  await writeFile(join(other, name(1)), partOf(0));
  await writeFile(join(other, name(2)), partOf(2));
  await expect(read()).rejects.toThrow(/it is part 1 of 3; expected part 2 of 3/);
  await writeFile(join(other, name(1)), partOf(2, { "split.no": [2, 1] }));
  await expect(read()).rejects.toThrow(/another part has it too/);
  await writeFile(
    join(other, name(1)),
    ggufFile({ ...gguf, metadata: { "split.no": [2, 1], "split.count": [2, 3] }, tensors: [] }),
  );
  await expect(read()).rejects.toThrow(/split.tensors.count: its 3 parts have \d+ tensors/);
  await rm(other, { recursive: true });
});

it("a GGUF file is known by its first bytes or by its name in any case", async () => {
  for (const file of ["M.GGUF", "sha256-abc"]) {
    await writeFile(join(directory, file), ggufFile(gguf));
    expect((await tensorsOf(join(directory, file))).size).toBe(gguf.tensors.length);
  }
  await writeFile(join(directory, "notes.txt"), "no model");
  await expect(resolveModel(join(directory, "notes.txt"))).rejects.toThrow(/is a file and no GGUF file/);
});
