import { afterAll, describe, expect, test } from "vitest";
import { findStep, type ModelSpec, parseModelConfig } from "../../src/arch/index.js";
import { expertMethods, keptExperts } from "../../src/compress/index.js";
import { UsageError } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadDescribed, loadModel } from "../../src/model/index.js";
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
