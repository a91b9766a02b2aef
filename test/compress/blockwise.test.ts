import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type InputStatistics, pruneMethods, StatisticsAccumulator } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";
import type { Checkpoint } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel, type TapSite, tapSites } from "../../src/model/index.js";
import { type BlockwiseOptions, compressBlockwise } from "../../src/pipeline/blockwise.js";
import { replaceTensors } from "../../src/pipeline/checkpointView.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const window = 16;
const windows = 3;
const random = new Random(9);
const tokens = Uint32Array.from({ length: window * windows }, () => random.integer(256));
const backend = "reference";

/** What every layer's input sums to when the whole model runs, by tensor name. */
async function wholeModelGrams(checkpoint: Checkpoint): Promise<Map<string, Float64Array | Float32Array>> {
  using own = await openBackend(backend);
  using model = await loadModel(checkpoint, own, { weights: "f32" });
  using cache = model.createCache(window);
  const sums = new Map<string, StatisticsAccumulator>();
  for (let w = 0; w < windows; w++) {
    await model.forward(tokens.subarray(w * window, (w + 1) * window), cache, 0, {
      logits: "none",
      tap: {
        sites: Object.keys(tapSites) as TapSite[],
        async onActivation(layer, site, activation) {
          const key = `${layer} ${site}`;
          if (!sums.has(key)) sums.set(key, new StatisticsAccumulator(activation.cols, ["gram"]));
          sums.get(key)!.add(await own.read(activation));
        },
      },
    });
  }
  const grams = new Map<string, Float64Array | Float32Array>();
  for (const name of checkpoint.tensors.keys()) {
    const match = /^model\.layers\.(\d+)\..*\.(\w+_proj)\.weight$/.exec(name);
    if (match === null) continue;
    const site = Object.entries(tapSites).find(([, ps]) => (ps as readonly string[]).includes(match[2]))![0];
    grams.set(name, sums.get(`${match[1]} ${site}`)!.finish().get("gram"));
  }
  return grams;
}

async function run(checkpoint: Checkpoint, options: Partial<BlockwiseOptions>) {
  const seen = new Map<string, InputStatistics>();
  const blocks = [];
  const all: BlockwiseOptions = {
    tokens,
    windows,
    window,
    backend,
    statistics: ["gram"],
    ...options,
    compress(layer, statistics) {
      seen.set(layer.name, statistics);
      return options.compress?.(layer, statistics);
    },
  };
  for await (const block of compressBlockwise(checkpoint, all)) blocks.push(block);
  return { seen, blocks, weights: new Map(blocks.flatMap(({ weights }) => [...weights])) };
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  let size = 0;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    size = Math.max(size, Math.abs(expected[i]));
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  }
  expect(worst).toBeLessThan(1e-5 * size);
}

describe.each(["llama", "mistral", "qwen2", "qwen3"])("block by block: %s", (architecture) => {
  let checkpoint: MemoryCheckpoint;
  beforeAll(async () => {
    checkpoint = await MemoryCheckpoint.golden(architecture);
  });

  test("nothing compressed: statistics are those of the whole model", async () => {
    const { seen, blocks } = await run(checkpoint, {});
    const expected = await wholeModelGrams(checkpoint);
    expect([...seen.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, gram] of expected) expectClose(seen.get(name)!.get("gram"), gram);
    expect(blocks.map(({ layer, weights }) => [layer, weights.size])).toEqual([
      [0, 0],
      [1, 0],
    ]);
  });

  test("later blocks see what compressed ones give", async () => {
    const { method } = await pruneMethods.magnitude();
    const prune: BlockwiseOptions["compress"] = (layer, statistics) =>
      layer.name.startsWith("model.layers.0.")
        ? method.prune(layer, statistics, { type: "unstructured", sparsity: 0.7 }, { counting: "exact" }).weight
        : undefined;
    const { seen, weights } = await run(checkpoint, { compress: prune });
    expect(weights.size).toBe(7);
    const expected = await wholeModelGrams(replaceTensors(checkpoint, weights));
    const dense = await wholeModelGrams(checkpoint);
    for (const [name, gram] of expected) {
      const first = name.startsWith("model.layers.0.");
      // The first block is measured with its own weights, before they change.
      expectClose(seen.get(name)!.get("gram"), first ? dense.get(name)! : gram);
    }
  });
});

describe("block by block", () => {
  let checkpoint: MemoryCheckpoint;
  let own: Backend;
  beforeAll(async () => {
    checkpoint = await MemoryCheckpoint.golden("llama");
    own = await openBackend(backend);
  });
  afterAll(() => own[Symbol.dispose]());

  test("the layers that read one input share its statistics", async () => {
    const { seen } = await run(checkpoint, {});
    const of = (name: string) => seen.get(`model.layers.1.${name}.weight`)!;
    expect(of("self_attn.q_proj")).toBe(of("self_attn.v_proj"));
    expect(of("mlp.gate_proj")).toBe(of("mlp.up_proj"));
    expect(of("self_attn.q_proj")).not.toBe(of("mlp.gate_proj"));
    expect(of("mlp.down_proj").tokens).toBe(window * windows);
  });

  test("without statistics no tokens are needed, and the result loads", async () => {
    const { seen, weights } = await run(checkpoint, {
      tokens: new Uint32Array(),
      statistics: [],
      compress: ({ weight }) => weight.map((w) => w / 2),
    });
    expect(seen.size).toBe(14);
    expect(seen.get("model.layers.0.mlp.down_proj.weight")!.has("gram")).toBe(false);
    const view = replaceTensors(checkpoint, weights);
    const name = "model.layers.1.mlp.up_proj.weight";
    expect(await view.readFloat32(name)).toEqual(checkpoint.values(name).map((w) => w / 2));
    using model = await loadModel(view, own, { weights: "f32" });
    expect(model.config.layers).toBe(2);
  });

  test("refuses too few tokens, and stops when told to", async () => {
    await expect(run(checkpoint, { tokens: tokens.subarray(1) })).rejects.toThrow(
      /3 windows of 16 tokens from a text of 47/,
    );
    const controller = new AbortController();
    const stopped = run(checkpoint, {
      signal: controller.signal,
      compress: () => {
        controller.abort();
        return undefined;
      },
    });
    await expect(stopped).rejects.toThrow(/abort/i);
  });

  test("the same input gives the same weights", async () => {
    const { method } = await pruneMethods.sparsegpt();
    const options = method.options.parse({ blockSize: 16 });
    const prune: BlockwiseOptions["compress"] = (layer, statistics) =>
      method.prune(layer, statistics, { type: "nm", keep: 2, group: 4 }, options).weight;
    const [first, second] = [await run(checkpoint, { compress: prune }), await run(checkpoint, { compress: prune })];
    expect(first.weights.size).toBe(14);
    for (const [name, { values }] of first.weights) expect(second.weights.get(name)!.values).toEqual(values);
  });
});
