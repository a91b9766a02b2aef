import { beforeAll, describe, expect, test } from "vitest";
import { linearsOf, type ModelSpec, readModelSpec } from "../../src/arch/index.js";
import type { RecipeInput } from "../../src/compress/index.js";
import { ProblemsError } from "../../src/core/index.js";
import type { Checkpoint } from "../../src/io/index.js";
import { readReference } from "../../src/io/internal.js";
import { type GradientSource, memoryWorkspace, planCompression, runCompression } from "../../src/pipeline/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { gradientSource, modelParameters, readWeights } from "../../src/train/index.js";
import { parameterName } from "../../src/train/models/parameters.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { calibration, compress, jobOptions, logits, randomTokens, relativeDifference, window } from "./support.js";

/** Gradients on their way from training to compression. */

beforeAll(() => startEngine("wasm"));

const specOf = ({ config }: Checkpoint): ModelSpec => readModelSpec(config, "config.json");
const obd = (pattern: object, more: object = {}): RecipeInput["stages"][number] =>
  ({ type: "prune", method: "obd", options: { curvature: "gradients" }, pattern, ...more }) as never;
const half = { type: "unstructured", sparsity: 0.5 };

async function squaresOf(checkpoint: Checkpoint, tokens: Uint32Array) {
  const squares = new Map<string, Float32Array>();
  const order: number[] = [];
  for await (const block of gradientSource().blockGradients(checkpoint, specOf(checkpoint), { tokens, window }, [
    "squaredGradients",
  ])) {
    order.push(block.layer);
    for (const [id, values] of block.values.squaredGradients!) squares.set(`${block.layer}.${id}`, values);
  }
  return { squares, order };
}

test.each(["llama", "gpt2", "gemma2", "mixtral"])(
  "%s: block by block, squared gradients are those of the model differentiated whole",
  async (name) => {
    const checkpoint = await MemoryCheckpoint.golden(name);
    const spec = specOf(checkpoint);
    const tokens = randomTokens(7, 2 * window);
    const { squares, order } = await squaresOf(checkpoint, tokens);
    expect(order).toEqual([1, 0]);

    const parameters = modelParameters(spec);
    const weights = await readWeights(checkpoint, parameters);
    using objective = tracedObjective(traceModel(spec, parameters, window - 1));
    const expected = new Map<string, Float64Array>();
    for (const start of [0, window]) {
      const ids = Int32Array.from(tokens.subarray(start, start + window));
      const shape = [window - 1];
      const { gradients } = await objective.lossAndGradients(weights, {
        tokens: { shape, values: ids.subarray(0, -1) },
        label: { shape, values: ids.subarray(1) },
      });
      for (const [name, gradient] of gradients) {
        const sums = expected.get(name) ?? new Float64Array(gradient.length);
        expected.set(
          name,
          sums.map((sum, i) => sum + gradient[i] ** 2 / 2),
        );
      }
    }
    let maps = 0;
    for (const [layer, block] of spec.blocks.entries()) {
      for (const { id, weight } of linearsOf(block)) {
        const found = squares.get(`${layer}.${id}`)!;
        expect(relativeDifference(found, expected.get(parameterName(weight))!), `${layer}.${id}`).toBeLessThan(1e-4);
        maps++;
      }
    }
    expect(squares.size).toBe(maps);
  },
);

test("they are the squared differences of the loss that the runtime gives", async () => {
  const checkpoint = await MemoryCheckpoint.golden("qwen2");
  const tokens = randomTokens(8, window);
  const { squares } = await squaresOf(checkpoint, tokens);
  const { vocabSize } = specOf(checkpoint);
  /** Mean negative log likelihood of the window, by the reference backend. */
  const lossOf = async (changed: Checkpoint) => {
    const rows = await logits(changed, tokens.subarray(0, -1));
    let sum = 0;
    for (let t = 0; t + 1 < window; t++) {
      const row = rows.subarray(t * vocabSize, (t + 1) * vocabSize);
      const top = Math.max(...row);
      sum += Math.log(row.reduce((total, v) => total + Math.exp(v - top), 0)) + top - row[tokens[t + 1]];
    }
    return sum / (window - 1);
  };
  for (const name of ["self_attn.q_proj", "mlp.down_proj"]) {
    const tensor = `model.layers.0.${name}.weight`;
    const found = squares.get(`0.${name.split(".")[1]}`)!;
    // Where it is largest, a difference in f32 tells most.
    const at = found.indexOf(Math.max(...found));
    const h = 0.02;
    const lossAt = async (shift: number) => {
      const moved = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
      const values = checkpoint.values(tensor).slice();
      values[at] += shift;
      moved.set(tensor, checkpoint.tensors.get(tensor)!.shape, values);
      return lossOf(moved);
    };
    const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
    expect(Math.abs(difference), name).toBeGreaterThan(1e-3);
    expect(Math.sqrt(found[at]) / Math.abs(difference), name).toBeCloseTo(1, 2);
  }
});

describe("obd with the curvature of gradients", () => {
  test("removes the weights of the smallest h·w², of each matrix its own", async () => {
    const checkpoint = await MemoryCheckpoint.golden("gpt2");
    const spec = specOf(checkpoint);
    const { squares } = await squaresOf(checkpoint, calibration.tokens);
    const { opened, artifact } = await compress(checkpoint, {
      stages: [obd({ ...half, scope: "tensor" })],
      gradients: gradientSource(),
    });
    expect(artifact.origin).toMatchObject({ compression: { recipe: { stages: [{ method: "obd" }] } } });
    for (const [layer, block] of spec.blocks.entries()) {
      for (const { id, weight, rows, cols } of linearsOf(block)) {
        const [before, after] = [await readReference(checkpoint, weight), await readReference(opened, weight)];
        const fisher = squares.get(`${layer}.${id}`)!;
        const saliency = before.map((w, i) => w * w * fisher[i]);
        const zeros = after.reduce((count, w) => count + (w === 0 ? 1 : 0), 0);
        expect(zeros, id).toBe((rows * cols) / 2);
        const kept = saliency.filter((_, i) => after[i] !== 0);
        const gone = saliency.filter((_, i) => after[i] === 0);
        const [least, most] = [kept, gone].map((values) => values.toSorted((a, b) => a - b));
        expect(most.at(-1)!, id).toBeLessThanOrEqual(least[0] * (1 + 1e-5));
      }
    }
  });

  test("a killed job does not differentiate again, and ends with the same bytes", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    let asked = 0;
    const own = gradientSource();
    const gradients: GradientSource = {
      ...gradientSource(),
      arithmetic: own.arithmetic,
      blockGradients: (...given) => {
        asked++;
        return own.blockGradients(...given);
      },
    };
    const stages = [obd({ type: "neurons", sparsity: 0.25, scope: "global" }, { multipleOf: 4 })];
    const { files: expected } = await compress(checkpoint, { stages, gradients });
    expect([...expected.keys()].filter((name) => /gradient/.test(name))).toEqual([]);
    expect(asked).toBe(1);

    const files = new Map<string, Uint8Array>();
    const options = jobOptions({ stages, gradients });
    const plan = await planCompression(checkpoint, options);
    const workspace = memoryWorkspace(files);
    const job = runCompression(
      checkpoint,
      plan,
      { workspace, companions: [] },
      {
        ...options,
        checkSource: async () => {
          if (files.has("gradients.json") && files.has("survey.json")) throw new Error("killed");
        },
      },
    );
    await expect(job).rejects.toThrow("killed");
    expect(files.has("gradients-00001.safetensors")).toBe(true);
    const broken = new Map(files).set("gradients-00001.safetensors", new Uint8Array(16));
    await expect(compress(checkpoint, { stages, gradients }, broken)).rejects.toThrow(
      /not the bytes that the job wrote/,
    );
    await compress(checkpoint, { stages, gradients }, files);
    expect(asked).toBe(2);
    expect([...files.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, bytes] of files) expect(Buffer.compare(bytes, expected.get(name)!), name).toBe(0);
  });

  test("what would make gradients wrong or leaves nobody to compute them is refused", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const problemsOf = async (stages: RecipeInput["stages"], gradients?: GradientSource) => {
      const error = await planCompression(checkpoint, jobOptions({ stages, gradients })).catch((caught) => caught);
      expect(error).toBeInstanceOf(ProblemsError);
      return (error as ProblemsError).problems.join("\n");
    };
    const source = gradientSource();
    expect(await problemsOf([obd(half)])).toMatch(/needs gradients of the loss/);
    const magnitude = { type: "prune", method: "magnitude", pattern: half } as never;
    expect(await problemsOf([magnitude, obd(half)], source)).toMatch(/stage 2 needs gradients/);
    const drop = { type: "dropLayers", method: "last", count: 1 } as never;
    expect(await problemsOf([drop, obd(half)], source)).toMatch(/drop layers in a recipe of its own/);
    const apart = [{ ...(magnitude as object), targets: ["**.mlp.**"] }, obd(half, { targets: ["**.self_attn.**"] })];
    await planCompression(checkpoint, jobOptions({ stages: apart as never, gradients: source }));
  });
});
