import { describe, expect, test } from "vitest";
import { findStep, linearsOf, readModelSpec, unitsOf } from "../../src/arch/index.js";
import type { RecipeInput } from "../../src/compress/index.js";
import { fisherDiagonal } from "../../src/compress/internal.js";
import { ProblemsError, Random } from "../../src/core/index.js";
import { type Checkpoint, compressionOf, memoryFiles, openCheckpoint } from "../../src/io/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import type { GradientSource, LabelledTokens, TextWindows } from "../../src/pipeline/index.js";
import { memoryWorkspace, planCompression, runCompression } from "../../src/pipeline/index.js";
import { classify } from "../../src/runtime/index.js";
import { gradientSource } from "../../src/train/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { compress, type JobInput, jobOptions, logits, randomTokens, relativeDifference, window } from "./support.js";

/** Texts of different lengths in two classes. */
const labelled: LabelledTokens = {
  texts: [9, 5, 12, 7].map((length, i) => randomTokens(20 + i, length)),
  labels: [0, 1, 1, 0],
  sha256: "cd".repeat(32),
};
const calibrationOf = (name: string) => (name === "bert" ? { labelled, calibration: undefined } : {});

const masks = (options: object = {}): RecipeInput["stages"] => [
  { type: "maskUnits", macs: 0.5, batch: 2, ...options } as never,
];

/** What units do is drawn, which takes no time: for all that does not depend on it. */
const drawn: GradientSource = {
  ...gradientSource(),
  async *unitGradients(_checkpoint, { blocks }, { tokens, window }, together) {
    const random = new Random(5);
    const batches = Math.ceil(tokens.length / window / together);
    for (const [layer, block] of blocks.entries()) {
      const of = (type: string) => {
        const units = unitsOf(block).find(({ kind }) => kind === type)!.count;
        return { values: Float64Array.from({ length: batches * units }, () => random.normal()), batches, units };
      };
      yield { layer, heads: of("heads"), neurons: of("neurons") };
    }
  },
};

async function mask(name: string, options: object = {}, more: Partial<JobInput> = {}) {
  const checkpoint = await MemoryCheckpoint.golden(name);
  const input = { stages: masks(options), gradients: drawn, store: "dense" as const, dtype: "F32" as const, ...more };
  return compress(checkpoint, { ...input, ...calibrationOf(name) });
}

const countOf = (sizes: readonly number[]) => sizes.reduce((a, b) => a + b, 0);

describe("gradients by the factors of units", () => {
  /** Mean loss over the labelled texts on the runtime, with the weights of a checkpoint. */
  async function lossOf(checkpoint: Checkpoint): Promise<number> {
    using backend = await openBackend("reference");
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    let loss = 0;
    for (const [i, text] of labelled.texts.entries())
      loss -= Math.log((await classify(model, text)).probabilities[labelled.labels[i]]);
    return loss / labelled.texts.length;
  }

  test("of a classifier on texts that are filled up are those of central differences", async () => {
    const checkpoint = await MemoryCheckpoint.golden("bert");
    const spec = readModelSpec(checkpoint.config, "config.json");
    const longest = Math.max(...labelled.texts.map(({ length }) => length));
    const tokens = new Uint32Array(labelled.texts.length * longest);
    for (const [i, text] of labelled.texts.entries()) tokens.set(text, i * longest);
    const windows: TextWindows = {
      tokens,
      window: longest,
      lengths: Uint32Array.from(labelled.texts, ({ length }) => length),
      labels: Int32Array.from(labelled.labels),
    };
    const found = [];
    for await (const block of gradientSource().unitGradients(checkpoint, spec, windows, 4)) found.push(block);
    expect(found.map(({ layer }) => layer)).toEqual([...spec.blocks.keys()].reverse());
    for (const { layer, ...kinds } of found) {
      for (const { kind, count, maps } of unitsOf(spec.blocks[layer])) {
        const { values, batches } = kinds[kind];
        expect([batches, values.length]).toEqual([1, count]);
        const { map } = maps.find(({ axis }) => axis === "cols")!;
        const name = map.weight.tensor;
        const weight = await checkpoint.readFloat32(name);
        const run = map.cols / count;
        for (const unit of [0, count - 1]) {
          const at = async (factor: number) => {
            const scaled = weight.map((w, i) => (Math.floor((i % map.cols) / run) === unit ? w * factor : w));
            const changed = await MemoryCheckpoint.golden("bert");
            changed.set(name, map.weight.shape, scaled);
            return lossOf(changed);
          };
          const h = 0.05;
          const slope = ((await at(1 + h)) - (await at(1 - h))) / (2 * h);
          const largest = Math.max(...values.map(Math.abs));
          expect(Math.abs(values[unit] - slope), `${kind} ${unit} of block ${layer}`).toBeLessThan(
            0.02 * largest + 1e-6,
          );
        }
      }
    }
  });

  test("are those of the weights behind them, one for every batch", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const spec = readModelSpec(checkpoint.config, "config.json");
    const windows = { tokens: randomTokens(9), window };
    const byBatch = [];
    for await (const block of gradientSource().unitGradients(checkpoint, spec, windows, 1)) byBatch.push(block);
    const together = [];
    for await (const block of gradientSource().unitGradients(checkpoint, spec, windows, 3)) together.push(block);
    for await (const { layer, values } of gradientSource().blockGradients(checkpoint, spec, windows, ["gradients"])) {
      const own = byBatch.find((block) => block.layer === layer)!;
      const mean = together.find((block) => block.layer === layer)!;
      for (const { kind, count, maps } of unitsOf(spec.blocks[layer])) {
        const { map } = maps.find(({ axis }) => axis === "cols")!;
        const weight = await checkpoint.readFloat32(map.weight.tensor);
        const gradient = values.gradients!.get(map.id)!;
        const expected = new Float64Array(count);
        for (const [i, w] of weight.entries())
          expected[Math.floor((i % map.cols) / (map.cols / count))] += w * gradient[i];
        expect(own[kind].batches).toBe(3);
        const ofBatches = expected.map(
          (_, unit) => [0, 1, 2].reduce((sum, b) => sum + own[kind].values[b * count + unit], 0) / 3,
        );
        expect(relativeDifference(ofBatches, expected)).toBeLessThan(1e-4);
        expect(relativeDifference(mean[kind].values, expected)).toBeLessThan(1e-4);
        expect(fisherDiagonal(mean[kind])[0]).toBeCloseTo(mean[kind].values[0] ** 2, 12);
      }
    }
  });
});

describe("masks of heads and neurons", () => {
  test.each(["llama", "gpt2", "bert"])("%s: what is removed and what is masked give the same logits", async (name) => {
    const [smaller, zeros] = [await mask(name), await mask(name, { shrink: false })];
    const widths = ({ opened: { config, artifact } }: typeof smaller) =>
      readModelSpec(config, "config.json", undefined, artifact!.blocks).blocks.map((block) =>
        linearsOf(block).map(({ rows }) => rows),
      );
    expect(widths(smaller)).not.toEqual(widths(zeros));
    expect(relativeDifference(await logits(smaller.opened), await logits(zeros.opened))).toBeLessThan(1e-5);
    const { macsShare, heads, neurons, tuned } = compressionOf(smaller.artifact)!.unitMasks!;
    expect(macsShare).toBeLessThanOrEqual(0.5);
    expect(macsShare).toBeGreaterThan(0.4);
    expect(countOf(heads)).toBeGreaterThan(0);
    // Of the first block the heads see what they always saw.
    expect(tuned).not.toContain("heads of block 0");
    expect(tuned.length).toBeGreaterThan(0);
    expect(neurons.length).toBe(heads.length);
  });

  test("a budget of all leaves the model as it is", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const { opened } = await mask("llama", { macs: 1 });
    expect(relativeDifference(await logits(opened), await logits(checkpoint))).toBeLessThan(1e-4);
  });

  test("tuned masks come nearer to the teacher than masks of ones", async () => {
    // Behind the whole model, of the calibration text itself.
    const tokens = randomTokens(9).subarray(0, window);
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const wanted = await logits(checkpoint, tokens);
    const errorOf = async (options: object) => {
      const { opened } = await mask("llama", { macs: 0.7, ...options }, { gradients: gradientSource() });
      const found = await logits(opened, tokens);
      return found.reduce((sum, value, i) => sum + (value - wanted[i]) ** 2, 0);
    };
    expect(await errorOf({})).toBeLessThan(await errorOf({ tune: false }));
  });

  test("a budget of time is kept by what this machine was measured to take", async () => {
    const { artifact } = await mask("llama", { macs: undefined, latency: 0.5 }, { backend: "wasm", threads: 1 });
    const { latency, heads, neurons } = compressionOf(artifact)!.unitMasks!;
    expect(latency!.heads.at(-1)!.units).toBe(Math.max(...latency!.heads.map(({ units }) => units)));
    expect(latency!.neurons.every(({ milliseconds }) => milliseconds > 0)).toBe(true);
    expect(countOf(heads) + countOf(neurons)).toBeGreaterThan(0);
  });

  test("a killed job does not differentiate again, and ends with the same bytes", async () => {
    let asked = 0;
    const gradients: GradientSource = {
      ...drawn,
      unitGradients: (...given) => {
        asked++;
        return drawn.unitGradients(...given);
      },
    };
    const { files: expected } = await mask("llama", {}, { gradients });
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const files = new Map<string, Uint8Array>();
    const options = jobOptions({ stages: masks(), gradients, store: "dense", dtype: "F32" });
    const plan = await planCompression(checkpoint, options);
    const killed = new AbortController();
    const workspace = memoryWorkspace(files);
    const stop = async () => {
      if (files.has("unit-gradients.json")) killed.abort();
    };
    await expect(
      runCompression(
        checkpoint,
        plan,
        { workspace, companions: [] },
        { ...options, signal: killed.signal, checkSource: stop, onProgress: () => void stop() },
      ),
    ).rejects.toThrow();
    expect(asked).toBe(2);
    expect([...files.keys()]).toContain("unit-gradients.json");
    const damaged = new Map(files);
    damaged.set("unit-gradients.safetensors", files.get("unit-gradients.safetensors")!.with(-1, 1));
    const input = { stages: masks(), gradients, store: "dense", dtype: "F32" } as const;
    await expect(compress(checkpoint, input, damaged)).rejects.toThrow(/not the bytes that the job wrote/);
    await compress(checkpoint, input, files);
    expect(asked).toBe(2);
    expect([...files.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, bytes] of files) expect(Buffer.compare(bytes, expected.get(name)!), name).toBe(0);
  });

  test("magnitude keeps the units of the largest squares within the budget, and needs no text", async () => {
    const { opened, artifact } = await mask(
      "llama",
      { method: "magnitude", tokens: 8, shrink: false, batch: undefined },
      { calibration: undefined, gradients: undefined },
    );
    const source = await MemoryCheckpoint.golden("llama");
    const { blocks } = readModelSpec(source.config, "config.json");
    // By brute force: for every number of heads the largest, and the neurons that fit beside them.
    const norms = { heads: [] as number[], neurons: [] as number[] };
    let kept = { heads: [] as number[], neurons: [] as number[] };
    const cost = { heads: 0, neurons: 0 };
    for (const block of blocks) {
      for (const { kind, count, maps } of unitsOf(block)) {
        const sums = new Array<number>(count).fill(0);
        const seen = new Array<number>(count).fill(0);
        cost[kind] = maps.reduce((sum, { map }) => sum + (map.rows * map.cols) / count, 0);
        for (const { map, axis } of maps) {
          const [before, after] = [
            await source.readFloat32(map.weight.tensor),
            await opened.readFloat32(map.weight.tensor),
          ];
          for (const [i, w] of before.entries()) {
            const line = axis === "rows" ? Math.floor(i / map.cols) : i % map.cols;
            const unit = Math.floor(line / ((axis === "rows" ? map.rows : map.cols) / count));
            sums[unit] += w * w;
            seen[unit] += Math.abs(after[i]);
          }
        }
        norms[kind].push(...sums);
        kept[kind].push(...seen);
      }
      const { heads, kv } = findStep(block, "attend")!;
      cost.heads += 8 * (heads / kv.heads) * (kv.k + kv.v);
    }
    kept = { heads: kept.heads.map((s) => (s > 0 ? 1 : 0)), neurons: kept.neurons.map((s) => (s > 0 ? 1 : 0)) };
    const costOf = (of: typeof kept) => countOf(of.heads) * cost.heads + countOf(of.neurons) * cost.neurons;
    const whole = norms.heads.length * cost.heads + norms.neurons.length * cost.neurons;
    expect(costOf(kept)).toBeLessThanOrEqual(0.5 * whole);
    expect(compressionOf(artifact)!.unitMasks!.macsShare).toBeCloseTo(costOf(kept) / whole, 12);
    for (const kind of ["heads", "neurons"] as const) {
      const least = Math.min(...norms[kind].filter((_, u) => kept[kind][u] === 1));
      const most = Math.max(...norms[kind].filter((_, u) => kept[kind][u] === 0));
      expect(least).toBeGreaterThanOrEqual(most);
    }
  });

  test("first keeps the first units of every layer, as many as the budget has room for", async () => {
    const input = { calibration: undefined, gradients: undefined };
    const options = { method: "first", macs: 0.6, batch: undefined };
    const { opened, artifact } = await mask("llama", { ...options, shrink: false }, input);
    const { macsShare, heads, neurons } = compressionOf(artifact)!.unitMasks!;
    expect(macsShare).toBeLessThanOrEqual(0.6);
    // Heads are few: one more of every layer would not fit.
    expect(macsShare).toBeGreaterThan(0.4);
    const { blocks } = readModelSpec(opened.config, "config.json");
    for (const [b, block] of blocks.entries()) {
      for (const { kind, count, maps } of unitsOf(block)) {
        const stays = (kind === "heads" ? heads : neurons)[b];
        expect(stays).toBe((kind === "heads" ? heads : neurons)[0]);
        for (const { map, axis } of maps) {
          const weight = await opened.readFloat32(map.weight.tensor);
          for (const [i, w] of weight.entries()) {
            const line = axis === "rows" ? Math.floor(i / map.cols) : i % map.cols;
            expect(w !== 0).toBe(Math.floor((line * count) / (axis === "rows" ? map.rows : map.cols)) < stays);
          }
        }
      }
    }
    await expect(mask("llama", { ...options, macs: 0.001 }, input)).rejects.toThrow("one head and one neuron");
  });

  test.each(["llama", "gpt2", "bert"])("%s: zeros takes away what gives nothing, and nothing else", async (name) => {
    const { files, opened: zeros } = await mask(name, { method: "fisher", shrink: false });
    const source = await openCheckpoint(memoryFiles("zeros", files));
    const { opened: smaller, artifact } = await compress(source, {
      stages: [{ type: "maskUnits", method: "zeros" } as never],
      store: "dense",
      dtype: "F32",
      calibration: undefined,
    });
    expect(relativeDifference(await logits(smaller), await logits(zeros))).toBeLessThan(1e-5);
    const { heads, neurons } = compressionOf(artifact)!.unitMasks!;
    const before = compressionOf(zeros.artifact!)!.unitMasks!;
    expect([heads, neurons]).toEqual([before.heads, before.neurons]);
    const widths = readModelSpec(smaller.config, "config.json", undefined, artifact.blocks).blocks;
    for (const [b, block] of widths.entries()) {
      const found = unitsOf(block).map(({ kind, count }) => [kind, count]);
      expect(found).toEqual([
        ["heads", Math.max(1, heads[b])],
        ["neurons", Math.max(1, Math.ceil(neurons[b] / 4)) * 4],
      ]);
    }
  });

  test("what gives nothing goes though it is computed, and what gives something stays", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const { blocks } = readModelSpec(checkpoint.config, "config.json");
    const { count, maps } = unitsOf(blocks[0]).find(({ kind }) => kind === "neurons")!;
    for (const { map, axis } of maps) {
      const weight = await checkpoint.readFloat32(map.weight.tensor);
      // Neurons 1 and 3 are computed and read by nobody; neuron 2 is read, and always 0.
      const units = axis === "cols" ? [1, 3] : [2];
      const changed = weight.map((w, i) =>
        units.includes(axis === "cols" ? i % map.cols : Math.floor(i / map.cols)) ? 0 : w,
      );
      checkpoint.set(map.weight.tensor, map.weight.shape, changed);
    }
    const stages = [{ type: "maskUnits", method: "zeros" } as never];
    const { artifact } = await compress(checkpoint, { stages, calibration: undefined, store: "dense", dtype: "F32" });
    const { neurons } = compressionOf(artifact)!.unitMasks!;
    expect(neurons[0]).toBe(count - 2);
    expect(new Set(neurons.slice(1))).toEqual(new Set([count]));
  });

  const problemsOf = async (name: string, input: object) => {
    const checkpoint = await MemoryCheckpoint.golden(name);
    const options = jobOptions({ stages: masks(), gradients: gradientSource(), ...input });
    const error = await planCompression(checkpoint, options).catch((caught) => caught);
    expect(error).toBeInstanceOf(ProblemsError);
    return (error as ProblemsError).problems.join("\n");
  };
  test.each([
    ["bert", {}, /need labelled texts/],
    ["llama", { labelled }, /labelled texts are for models that classify/],
    ["bert", { labelled: { ...labelled, texts: labelled.texts.slice(2) } }, /3 texts are asked for .* there are 2/],
    ["bert", { labelled: { ...labelled, labels: [0, 1, 9, 0] } }, /class 9 of a text, and the model has/],
    ["bert", { labelled, stages: [{ type: "prune", method: "wanda", pattern: 0.5 }] }, /only masks of units/],
    ["gpt_neox", {}, /do not add to the stream one after the other/],
    ["gemma2", {}, /do not add to the stream one after the other/],
    ["mixtral", {}, /models without mixtures of experts/],
    ["llama", { gradients: undefined }, /needs gradients of the loss/],
    [
      "llama",
      { stages: [{ type: "prune", method: "magnitude", pattern: 0.5 }, ...masks()] },
      /let it be the first stage/,
    ],
  ])("%s: %o is refused", async (name, input, message) => {
    expect(await problemsOf(name, input)).toMatch(message);
  });

  test("blocks in which attention and MLP read one stream can be masked, not tuned", async () => {
    const { artifact } = await mask("gpt_neox", { tune: false });
    expect(compressionOf(artifact)!.unitMasks!.tuned).toEqual([]);
  });
});
