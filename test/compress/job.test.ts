import { beforeAll, describe, expect, test } from "vitest";
import type { RecipeInput } from "../../src/compress/index.js";
import { ProblemsError, type ProgressEvent } from "../../src/core/index.js";
import { compressionOf, fingerprint, memoryFiles, parseArtifact, parseJson } from "../../src/io/index.js";
import { memoryWorkspace, planCompression, runCompression, type Workspace } from "../../src/pipeline/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { calibration, compress, type JobInput, jobOptions, randomTokens } from "./support.js";

const stages: RecipeInput["stages"] = [
  { type: "prune", method: "sparsegpt", pattern: { type: "neurons", sparsity: 0.25, scope: "global" }, multipleOf: 4 },
  { type: "prune", method: "sparsegpt", pattern: "2:4" },
  { type: "quantize", method: "gptq", options: { bits: 4, scaleType: "bf16" } },
];

let checkpoint: MemoryCheckpoint;
beforeAll(async () => {
  checkpoint = await MemoryCheckpoint.golden("llama");
});

/** A workspace that fails in place of its n-th change. */
function failing(files: Map<string, Uint8Array>, changes: number): Workspace {
  const workspace = memoryWorkspace(files);
  const change = () => {
    if (changes-- === 0) throw new Error("killed");
  };
  return {
    files: workspace.files,
    sinks: {
      async create(name) {
        const sink = await workspace.sinks.create(name);
        return {
          ...sink,
          commit: async () => {
            change();
            await sink.commit();
          },
        };
      },
    },
    async remove(name) {
      change();
      await workspace.remove(name);
    },
  };
}

describe("a job that is killed", () => {
  test("goes on from what is there, whatever it was doing, and ends with the same bytes", async () => {
    const { files: expected } = await compress(checkpoint, { stages });
    expect([...expected.keys()].sort()).toEqual([
      "config.json",
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      "model.safetensors.index.json",
      "rarefy.json",
    ]);
    const options = jobOptions({ stages });
    const plan = await planCompression(checkpoint, options);
    let kills = 0;
    for (let changes = 0; ; changes++) {
      const files = new Map<string, Uint8Array>();
      const first = runCompression(checkpoint, plan, { workspace: failing(files, changes), companions: [] }, options);
      const killed = await first.then(
        () => false,
        (error: Error) => {
          expect(error.message).toBe("killed");
          return true;
        },
      );
      if (!killed) break;
      kills++;
      const { resumedBlocks } = await compress(checkpoint, { stages }, files);
      if (changes >= 5) expect(resumedBlocks).toBeGreaterThan(0);
      expect([...files.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [name, bytes] of files)
        expect(Buffer.compare(bytes, expected.get(name)!), `${changes} ${name}`).toBe(0);
    }
    // Three files of weights, two records, job, survey, index, config and rarefy.json; four removals.
    expect(kills).toBe(14);
  });

  test("is not taken for another one", async () => {
    const files = new Map<string, Uint8Array>();
    const options = jobOptions({ stages });
    const plan = await planCompression(checkpoint, options);
    const job = runCompression(checkpoint, plan, { workspace: failing(files, 4), companions: [] }, options);
    await expect(job).rejects.toThrow("killed");
    const others: Partial<JobInput>[] = [
      { stages: stages.slice(1) },
      { store: "dense" },
      { dtype: "BF16" },
      { version: "2" },
      { calibration: { tokens: randomTokens(3), sha256: "cd".repeat(32) } },
    ];
    for (const other of others) {
      await expect(compress(checkpoint, { stages, ...other }, new Map(files))).rejects.toThrow(/holds another job/);
    }
    const moved = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
    moved.set(
      "model.norm.weight",
      [64],
      moved.values("model.norm.weight").map((w) => w * 2),
    );
    await expect(compress(moved, { stages }, new Map(files))).rejects.toThrow(/holds another job/);
  });

  test("one number of the weights decides, wherever it lies", async () => {
    const { weightsSha256 } = await fingerprint(checkpoint);
    expect(await fingerprint(await MemoryCheckpoint.golden("llama"))).toMatchObject({ weightsSha256 });
    for (const name of ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"]) {
      const { shape } = checkpoint.tensors.get(name)!;
      for (const at of [0, 5000, shape[0] * shape[1] - 1]) {
        const other = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
        other.set(name, [...shape], checkpoint.values(name).with(at, 7));
        expect((await fingerprint(other)).weightsSha256, `${name} ${at}`).not.toBe(weightsSha256);
      }
    }
  });

  test("a signal stops it between windows", async () => {
    const controller = new AbortController();
    const files = new Map<string, Uint8Array>();
    const onProgress = ({ stage, done }: ProgressEvent) => {
      if (stage === "compress" && done > 3) controller.abort();
    };
    await expect(compress(checkpoint, { stages, signal: controller.signal, onProgress }, files)).rejects.toThrow(
      /abort/i,
    );
    expect(files.has("job.json")).toBe(true);
    expect(files.has("rarefy.json")).toBe(false);
  });

  test("records of other jobs and broken ones are refused by name", async () => {
    const files = new Map<string, Uint8Array>();
    const options = jobOptions({ stages });
    const plan = await planCompression(checkpoint, options);
    const job = runCompression(checkpoint, plan, { workspace: failing(files, 5), companions: [] }, options);
    await expect(job).rejects.toThrow("killed");
    expect(files.has("block-00000.json")).toBe(true);
    const record = JSON.parse(new TextDecoder().decode(files.get("block-00000.json")));
    const { artifact } = record;
    const other = { compression: { ...artifact.origin.compression, job: "0".repeat(64) } };
    const broken: [unknown, RegExp][] = [
      [null, /block-00000.json: .*expected object/],
      [{ ...record, artifact: { ...artifact, blocks: [] } }, /block-00000.json: not the record of this job/],
      [{ ...record, artifact: { ...artifact, origin: other } }, /not the record of this job/],
      [{ ...record, artifact: { ...artifact, origin: 3 } }, /block-00000.json: origin/],
      [
        { ...record, shardSha256: "0".repeat(64) },
        /model-00002-of-00003.safetensors: not the bytes that the job wrote/,
      ],
    ];
    for (const [value, message] of broken) {
      const changed = new Map(files).set("block-00000.json", new TextEncoder().encode(JSON.stringify(value)));
      await expect(compress(checkpoint, { stages }, changed)).rejects.toThrow(message);
    }
  });
});

test("a survey that the job did not write is refused, and so is a damaged block", async () => {
  const options = jobOptions({ stages });
  const plan = await planCompression(checkpoint, options);
  const files = new Map<string, Uint8Array>();
  const job = runCompression(checkpoint, plan, { workspace: failing(files, 5), companions: [] }, options);
  await expect(job).rejects.toThrow("killed");
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const stored = JSON.parse(new TextDecoder().decode(files.get("survey.json")));
  const [stage, budgets] = Object.entries<Record<string, { unitsKept: number }>>(stored.survey.budgets)[0];
  const other = { ...budgets, 0: { unitsKept: budgets[0].unitsKept - 4 } };
  const surveys: [unknown, RegExp][] = [
    [null, /survey.json: .*expected object/],
    [{ ...stored, survey: { ...stored.survey, kept: [99, 99] } }, /survey.kept: layers 99, 99; expected 2 of the 2/],
    [{ ...stored, survey: { ...stored.survey, budgets: { [stage]: other } } }, /survey.json: not what the job wrote/],
  ];
  for (const [value, message] of surveys) {
    await expect(compress(checkpoint, { stages }, new Map(files).set("survey.json", json(value)))).rejects.toThrow(
      message,
    );
  }
  const shard = "model-00002-of-00003.safetensors";
  const damaged = files.get(shard)!.slice();
  damaged[damaged.length - 9] ^= 1;
  await expect(compress(checkpoint, { stages }, new Map(files).set(shard, damaged))).rejects.toThrow(
    /model-00002.*: not the bytes that the job wrote/,
  );
  await expect(compress(checkpoint, { stages }, new Map(files).set("job.json", json({})))).rejects.toThrow(
    /job.json: job/,
  );
});

test("a source that changes while the job runs stops it before the next block is recorded", async () => {
  const files = new Map<string, Uint8Array>();
  const checkSource = async () => {
    if (files.has("model-00003-of-00003.safetensors")) throw new Error("the source changed");
  };
  await expect(compress(checkpoint, { stages, checkSource }, files)).rejects.toThrow("the source changed");
  expect([files.has("block-00000.json"), files.has("block-00001.json")]).toEqual([true, false]);
});

describe("a plan", () => {
  const problemsOf = async (input: JobInput): Promise<readonly string[]> => {
    const error = await planCompression(checkpoint, jobOptions(input)).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error instanceof ProblemsError) return error.problems;
    throw error ?? new Error("there is no problem");
  };

  test("tells all problems of recipe, text and machine at once", async () => {
    const problems = await problemsOf({
      stages: [
        { type: "prune", method: "sparsegpt", pattern: "3:7" },
        { type: "quantize", method: "gtpq" },
      ],
      calibration: { tokens: randomTokens(1, 20), sha256: "ab".repeat(32) },
    });
    expect(problems.filter((p) => /64 columns are not a multiple of 7/.test(p)).length).toBeGreaterThan(3);
    expect(problems).toContainEqual(expect.stringMatching(/no method "gtpq"/));
    expect(
      await problemsOf({
        stages: [{ type: "prune", method: "obd", pattern: 0.5, options: { curvature: "gradients" } }],
      }),
    ).toEqual([expect.stringMatching(/needs gradients/)]);
    expect(await problemsOf({ stages, calibration: undefined })).toEqual([
      expect.stringMatching(/needs a calibration text/),
    ]);
    expect(await problemsOf({ stages, calibration: { tokens: randomTokens(1, 20), sha256: "ab".repeat(32) } })).toEqual(
      [expect.stringMatching(/3 windows of 16 tokens are 48, and the calibration text has 20/)],
    );
    expect(await problemsOf({ stages, limits: { memoryBytes: 1e6, diskBytes: 1e5 } })).toEqual([
      expect.stringMatching(/of memory are needed and 0.0010 GB are free; take fewer windows/),
      expect.stringMatching(/of disk are needed/),
    ]);
  });

  test("a way to store that there is not is refused before anything runs", async () => {
    const options = jobOptions({ stages, store: "sparse" as "dense" });
    await expect(planCompression(checkpoint, options)).rejects.toThrow(/store is packed or dense, not "sparse"/);
  });

  test("says what the job will take", async () => {
    const { estimate, layers } = await planCompression(checkpoint, jobOptions({ stages }));
    expect(layers).toBe(2);
    expect(estimate.elapsedMs).toBeGreaterThan(1);
    const stored = [...checkpoint.tensors.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
    expect(estimate.diskBytes).toBe(stored);
  });
});

describe("results", () => {
  test("dense and packed hold the same values", async () => {
    const [packed, dense] = [
      await compress(checkpoint, { stages, dtype: "F32" }),
      await compress(checkpoint, { stages, dtype: "F32", store: "dense" }),
    ];
    expect(dense.artifact.tensors).toBeUndefined();
    expect([...packed.opened.tensors.keys()].sort()).toEqual([...dense.opened.tensors.keys()].sort());
    for (const name of packed.opened.tensors.keys()) {
      expect(await packed.opened.readFloat32(name)).toEqual(await dense.opened.readFloat32(name));
    }
    const bytes = ({ files }: typeof packed) =>
      [...files].filter(([name]) => /0000[23]-of/.test(name)).reduce((sum, [, b]) => sum + b.byteLength, 0);
    expect(bytes(packed)).toBeLessThan(0.25 * bytes(dense));
  });

  test("the record says how it was made, and reads back", async () => {
    const { files, artifact } = await compress(checkpoint, { stages });
    const read = parseArtifact(parseJson(files.get("rarefy.json")!, "rarefy.json"), "rarefy.json");
    expect(read).toEqual(JSON.parse(JSON.stringify(artifact)));
    const compression = compressionOf(read)!;
    expect(compression).toMatchObject({
      version: "test",
      store: "packed",
      calibration: { textSha256: calibration.sha256, windows: 3, window: 16 },
    });
    expect(compression.recipe).toMatchObject({
      version: 1,
      seed: 0,
      stages: [{ type: "prune", multipleOf: 4 }, {}, {}],
    });
    for (const { matrices } of compression.layers) {
      for (const { relativeError } of Object.values(matrices)) expect(relativeError).toBeGreaterThan(0);
    }
  });

  test("windows drawn by a seed: the same seed the same result, another one another", async () => {
    const many = { tokens: randomTokens(5, 400), sha256: "ab".repeat(32) };
    const weights = async (seed: number, order: "first" | "random") => {
      const options = jobOptions({ stages: [{ type: "prune", method: "wanda", pattern: 0.5 }], calibration: many });
      options.recipe = { ...options.recipe, seed, calibration: { ...options.recipe.calibration, order } };
      const plan = await planCompression(checkpoint, options);
      const files = new Map<string, Uint8Array>();
      await runCompression(checkpoint, plan, { workspace: memoryWorkspace(files), companions: [] }, options);
      return Buffer.from(files.get("model-00003-of-00003.safetensors")!).toString("hex");
    };
    const one = await weights(1, "random");
    expect(await weights(1, "random")).toBe(one);
    expect(await weights(2, "random")).not.toBe(one);
    expect(await weights(0, "first")).not.toBe(one);
  });

  test("companions come along", async () => {
    const files = new Map<string, Uint8Array>();
    const source = new Map([["tokenizer.json", new Uint8Array([1, 2, 3])]]);
    const withFiles = Object.assign(await MemoryCheckpoint.golden("llama"), { files: memoryFiles("source", source) });
    const options = jobOptions({ stages: [{ type: "prune", method: "magnitude", pattern: 0.5 }] });
    const plan = await planCompression(withFiles, options);
    const job = { workspace: memoryWorkspace(files), companions: ["tokenizer.json", "gone.txt"] };
    await runCompression(withFiles, plan, job, options);
    expect(files.get("tokenizer.json")).toEqual(new Uint8Array([1, 2, 3]));
    expect(files.has("gone.txt")).toBe(false);
  });
});
