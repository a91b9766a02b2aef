import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seeds } from "../../test/support/seeds.js";
import { openCheckpoint } from "./checkpoint.js";
import { exportModel } from "./export/exportModel.node.js";
import { directoryFiles } from "./file.node.js";
import { resolveModel } from "./hub.node.js";

/** Splits as GPT-2 does, which GGUF has a name for. */
const exportable = {
  ...seeds.tokenizer,
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
};

let root: string;
let model: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "rarefy-files-"));
  model = join(root, "model");
  await mkdir(model);
  const { header, data } = seeds.safetensorsParts(seeds.plain);
  await writeFile(join(model, "config.json"), JSON.stringify(seeds.configs[0]));
  await writeFile(join(model, "tokenizer.json"), JSON.stringify(exportable));
  await writeFile(join(model, "model.safetensors"), seeds.safetensorsFile(header, data));
  await writeFile(join(root, "m.gguf"), seeds.ggufFile(seeds.gguf));
  await writeFile(join(root, "cut.gguf"), seeds.ggufFile(seeds.gguf).subarray(0, 4000));
});
afterAll(() => rm(root, { recursive: true }));

describe("what lies in a model directory", () => {
  it("a link that leads nowhere is no file", async () => {
    await symlink(join(root, "nowhere"), join(model, "LICENSE"));
    expect(await directoryFiles(model).names()).not.toContain("LICENSE");
    await rm(join(model, "LICENSE"));
  });

  it.skipIf(process.platform === "win32")("a pipe is refused, and nobody waits for it", async () => {
    execFileSync("mkfifo", [join(model, "generation_config.json")]);
    const checkpoint = await openCheckpoint(directoryFiles(model));
    await expect(checkpoint.readJson("generation_config.json")).rejects.toThrow(/not a regular file/);
    await checkpoint.close();
    await rm(join(model, "generation_config.json"));
  });
});

const descriptors = "/proc/self/fd";
/** Names of the model's files that this process holds open. */
const held = () =>
  readdirSync(descriptors).flatMap((fd) => {
    try {
      const target = execFileSync("readlink", [`/proc/${process.pid}/fd/${fd}`], { encoding: "utf8" }).trim();
      return target.startsWith(root) ? [target] : [];
    } catch {
      return [];
    }
  });

describe.skipIf(!existsSync(descriptors))("files that were opened are closed", () => {
  const uses: [string, () => Promise<unknown>][] = [
    ["files of a directory", () => directoryFiles(model).names()],
    ["resolveModel", async () => (await resolveModel(model)).close()],
    ["a GGUF file as a directory", async () => (await resolveModel(join(root, "m.gguf"))).close()],
    ["a checkpoint", async () => (await openCheckpoint(directoryFiles(model))).close()],
    ["a GGUF checkpoint", async () => (await openCheckpoint(await resolveModel(join(root, "m.gguf")))).close()],
    [
      "a read of JSON",
      async () => {
        const checkpoint = await openCheckpoint(directoryFiles(model));
        await checkpoint.readJson("config.json");
        await checkpoint.close();
      },
    ],
    [
      "a file that is cut",
      async () => {
        await expect(resolveModel(join(root, "cut.gguf"))).rejects.toThrow(/more than the file has room for/);
      },
    ],
    [
      "a shard that is missing",
      async () => {
        const broken = join(root, "broken");
        await mkdir(broken, { recursive: true });
        const { header, data } = seeds.safetensorsParts(seeds.plain);
        await writeFile(join(broken, "config.json"), JSON.stringify(seeds.configs[0]));
        await writeFile(join(broken, "a.safetensors"), seeds.safetensorsFile(header, data));
        const weight_map = { "model.norm.weight": "a.safetensors", "lm_head.weight": "b.safetensors" };
        await writeFile(join(broken, "model.safetensors.index.json"), JSON.stringify({ weight_map }));
        await expect(openCheckpoint(directoryFiles(broken))).rejects.toThrow(/b.safetensors.*shard is missing/);
      },
    ],
    [
      "exports",
      async () => {
        await exportModel(await resolveModel(model), join(root, "out.gguf"), { format: "gguf", type: "f16" });
        await exportModel(await resolveModel(model), join(root, "out"), { format: "safetensors" });
      },
    ],
    [
      "an export that fails",
      async () => {
        const failed = exportModel(await resolveModel(model), join(root, "out2.gguf"), {
          format: "gguf",
          check: () => Promise.reject(new Error("no")),
        });
        await expect(failed).rejects.toThrow("no");
      },
    ],
  ];

  it.each(uses)("%s", async (_name, use) => {
    await use();
    expect(held()).toEqual([]);
  });

  it("the count sees a file that is open", async () => {
    const source = await directoryFiles(model).open("config.json");
    expect(held()).toEqual([join(model, "config.json")]);
    await source!.close();
  });
});
