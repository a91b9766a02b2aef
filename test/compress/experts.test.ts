import { afterAll, describe, expect, test } from "vitest";
import { findStep, type ModelSpec, parseModelConfig } from "../../src/arch/index.js";
import { expertMethods, mergeGroups, mergeShares, permuted } from "../../src/compress/index.js";
import { keptExperts } from "../../src/compress/internal.js";
import { assignRows } from "../../src/compress/linalg/assignment.js";
import { Random, UsageError } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { loadDescribed } from "../../src/model/internal.js";
import { cutExperts, measureExperts } from "../../src/pipeline/index.js";
import { architectureGolden, logitsOf, path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const opened: Backend[] = [];
afterAll(() => {
  for (const backend of opened) backend[Symbol.dispose]();
});
const reference = async () => {
  opened.push(await openBackend("reference"));
  return opened.at(-1)!;
};

test("experts of lowest score go, of equal ones the first, as many of each group", () => {
  expect(keptExperts([3, 1, 1, 2], 1, { perToken: 2 })).toEqual([0, 2, 3]);
  expect(keptExperts([3, 1, 1, 2], 2, { perToken: 2 })).toEqual([0, 3]);
  expect(keptExperts([9, 8, 1, 2], 2, { perToken: 2, groups: 2 })).toEqual([0, 3]);
  for (const remove of [0, 3, 1.5])
    expect(() => keptExperts([3, 1, 1, 2], remove, { perToken: 2 })).toThrow(UsageError);
  expect(() => keptExperts([3, 1, 1, 2], 1, { perToken: 1, groups: 2 })).toThrow("groups");
});

test("scores: REAP is a mean over an expert's own tokens", () => {
  const statistics = {
    tokens: 10,
    counts: Float64Array.of(4, 0, 6),
    weights: Float64Array.of(2, 0, 3),
    saliencies: Float64Array.of(8, 0, 3),
  };
  const scores = (id: string) => [0, 1, 2].map((e) => expertMethods[id].score(statistics, e));
  expect(scores("reap")).toEqual([2, 0, 0.5]);
  expect(scores("frequency")).toEqual([4, 0, 6]);
  expect(scores("routerWeight")).toEqual([2, 0, 3]);
});

/** The spec whose routers have these biases, by layer. */
const withRouterBias = (spec: ModelSpec, tensors: readonly string[], experts: number): ModelSpec => ({
  ...spec,
  blocks: spec.blocks.map(({ steps }, layer) => ({
    steps: steps.map((step) =>
      step.do === "mixture"
        ? {
            ...step,
            router: { ...step.router, map: { ...step.router.map, bias: { tensor: tensors[layer], shape: [experts] } } },
          }
        : step,
    ),
  })),
});

describe.each(["mixtral", "olmoe", "gpt_oss"])("%s", (name) => {
  const { ids } = architectureGolden(name);

  test("statistics count every slot, and a model without the experts gives what one gives that never chooses them", async () => {
    const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
    const model = await loadModel(checkpoint, await reference(), { weights: "f32" });
    const { spec } = model.config;
    const { router, experts } = findStep(spec.blocks[0], "mixture")!;
    const layers = await measureExperts(model, ids, { window: 8, maxWindows: 2, outputs: true });
    for (const layer of layers) {
      expect(layer!.counts.reduce((a, b) => a + b)).toBe(16 * router.perToken);
      expect(layer!.tokens).toBe(16);
      for (const [e, count] of layer!.counts.entries()) expect(layer!.saliencies![e] > 0).toBe(count > 0);
    }
    const kept = experts.map((_, e) => e).filter((e) => e !== 1 && e !== 2);
    const { config, tensors } = cutExperts(
      checkpoint,
      spec,
      spec.blocks.map(() => kept),
    );
    const cut = new MemoryCheckpoint(config, new Map());
    for (const { name, shape, bytes } of tensors) {
      const pieces: Uint8Array[] = [];
      for await (const piece of bytes()) pieces.push(await piece);
      cut.set(name, shape, new Float32Array(new Uint8Array(Buffer.concat(pieces)).buffer));
    }
    const less = await loadModel(cut, await reference(), { weights: "f32" });
    expect(less.config.experts!.count).toBe(experts.length - 2);

    // Logits of −∞ for the others.
    const never = await MemoryCheckpoint.golden(name);
    const names = spec.blocks.map((block, layer) => {
      const { bias } = findStep(block, "mixture")!.router.map;
      const own = bias && never.values(bias.tensor);
      const biases = Float32Array.from(experts, (_, e) => (kept.includes(e) ? (own?.[e] ?? 0) : -1e30));
      never.set(`never.${layer}`, [experts.length], biases);
      return `never.${layer}`;
    });
    const described = parseModelConfig(checkpoint.config, "config.json");
    const masked = { ...described, spec: withRouterBias(described.spec, names, experts.length) };
    const whole = await loadDescribed(never, masked, await reference(), { weights: "f32" });
    const some = ids.subarray(0, 12);
    const [a, b] = [await logitsOf(less, some), await logitsOf(whole, some)];
    for (const [r, row] of a.entries())
      for (const [i, v] of row.entries()) expect(Math.abs(v - b[r][i])).toBeLessThan(1e-4);
    await checkpoint.close();
  });
});

test("an assignment has the largest sum that any has", () => {
  const random = new Random(3);
  for (const n of [1, 2, 5, 6]) {
    const gains = Float64Array.from({ length: n * n }, () => Math.round(8 * random.uniform()) - 4);
    const sum = (columns: ArrayLike<number>) =>
      Array.from(columns, (col, row) => gains[row * n + col]).reduce((a, b) => a + b);
    const found = assignRows(gains, n);
    expect([...found].sort((a, b) => a - b)).toEqual([...Array(n).keys()]);
    expect(sum(found)).toBe(Math.max(...permutations(n).map(sum)));
  }
});

const permutations = (n: number): number[][] =>
  n === 0
    ? [[]]
    : permutations(n - 1).flatMap((p) =>
        Array.from({ length: n }, (_, at) => [...p.slice(0, at), n - 1, ...p.slice(at)]),
      );

test("experts that go join the one whose router logits are most like theirs, with shares by their tokens", () => {
  // Logits of four experts on three tokens.
  const logits = [
    [1, 0, 2],
    [0, 3, 0],
    [2, 0.1, 4],
    [0.1, 1, 0],
  ];
  const products = Float64Array.from(
    logits.flatMap((a) => logits.map((b) => a.reduce((sum, v, t) => sum + v * b[t], 0))),
  );
  expect(mergeGroups([0, 1], products)).toEqual([
    [0, 2],
    [1, 3],
  ]);
  expect(mergeGroups([2, 3], products)).toEqual([
    [2, 0],
    [3, 1],
  ]);
  expect(mergeShares([30, 10])).toEqual([0.75, 0.25]);
  expect(mergeShares([0, 0])).toEqual([1, 0]);
});

/** What is written of a checkpoint whose experts 0 and 2 become one, a quarter of the first. */
async function mergedInto0(checkpoint: MemoryCheckpoint, aligns: boolean): Promise<Map<string, Float32Array>> {
  const { spec } = parseModelConfig(checkpoint.config, "config.json");
  const groups = [
    [
      { expert: 0, share: 0.25 },
      { expert: 2, share: 0.75 },
    ],
    [{ expert: 1, share: 1 }],
    [{ expert: 3, share: 1 }],
  ];
  const kept = spec.blocks.map(() => [0, 1, 3]);
  const { tensors } = cutExperts(checkpoint, spec, kept, { groups: spec.blocks.map(() => groups), aligns });
  const written = new Map<string, Float32Array>();
  for (const { name, bytes } of tensors) {
    const pieces: Uint8Array[] = [];
    for await (const piece of bytes()) pieces.push(await piece);
    written.set(name, new Float32Array(new Uint8Array(Buffer.concat(pieces)).buffer));
  }
  return written;
}

test("an expert with its hidden units in another order is merged into its like without loss, where they are matched", async () => {
  const checkpoint = await MemoryCheckpoint.golden("mixtral");
  const name = (expert: number, map: string) => `model.layers.1.block_sparse_moe.experts.${expert}.${map}.weight`;
  const order = Uint32Array.from({ length: 160 }, (_, unit) => (unit * 7 + 3) % 160);
  for (const map of ["w1", "w2", "w3"]) {
    const values = checkpoint.values(name(0, map));
    const [rows, cols] = map === "w2" ? [64, 160] : [160, 64];
    const hidden = map === "w2" ? "cols" : "rows";
    checkpoint.set(name(2, map), [rows, cols], permuted({ values, rows, cols, hidden }, order));
  }
  const [aligned, average] = [await mergedInto0(checkpoint, true), await mergedInto0(checkpoint, false)];
  for (const map of ["w1", "w2", "w3"]) {
    const before = checkpoint.values(name(0, map));
    const far = (values: Float32Array) => values.reduce((most, v, i) => Math.max(most, Math.abs(v - before[i])), 0);
    expect(far(aligned.get(name(0, map))!)).toBeLessThan(1e-7);
    expect(far(average.get(name(0, map))!)).toBeGreaterThan(0.01);
    expect(aligned.get(name(2, map))).toEqual(checkpoint.values(name(3, map)));
  }
});

test("stacked experts and their biases are averaged entry by entry, and cannot be matched", async () => {
  const checkpoint = await MemoryCheckpoint.golden("gpt_oss");
  const written = await mergedInto0(checkpoint, false);
  for (const part of ["gate_up_proj", "gate_up_proj_bias", "down_proj"]) {
    const name = `model.layers.0.mlp.experts.${part}`;
    const before = checkpoint.values(name);
    const size = before.length / 4;
    const [a, b] = [before.subarray(0, size), before.subarray(2 * size, 3 * size)];
    const after = written.get(name)!;
    expect(after.length).toBe(3 * size);
    expect(after.subarray(0, size)).toEqual(a.map((v, i) => 0.25 * v + 0.75 * b[i]));
    expect(after.subarray(size, 2 * size)).toEqual(before.subarray(size, 2 * size));
  }
  await expect(mergedInto0(checkpoint, true)).rejects.toThrow("merge by average");
});
