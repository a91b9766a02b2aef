import { describe, expect, test } from "vitest";
import { type StatisticId, StatisticsAccumulator } from "../../src/compress/index.js";
import type { Checkpoint } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { describeDecoder, loadModel, type Tap } from "../../src/model/index.js";
import { loadBlock } from "../../src/pipeline/compress/block.js";
import { loadable } from "../../src/pipeline/compress/blockSource.js";
import { CalibrationRun } from "../../src/pipeline/compress/calibrationRun.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";
import { calibration, relativeDifference, window, windows } from "./support.js";

await useSoftwareGpu();
const gpu = await openBackend("webgpu").then(
  (backend) => void backend[Symbol.dispose](),
  (error: Error) => error.message,
);
const backends = ["reference", "wasm", ...(gpu === undefined ? ["webgpu"] : [])];
test.skipIf(gpu !== undefined)(`statistics on WebGPU${gpu === undefined ? "" : `: ${gpu}`}`, () => {
  expect(backends).toContain("webgpu");
});

const { tokens } = calibration;
/** What linear maps read. */
const sites = ["attentionInput", "attentionOutput", "mlpInput", "mlpHidden"];

/** What enters every site of the last layer when the whole model runs, summed in f64. */
async function wholeModel(checkpoint: Checkpoint, wanted: readonly StatisticId[]) {
  using backend = await openBackend("reference");
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  using cache = model.createCache(window);
  const sums = new Map<string, StatisticsAccumulator>();
  for (let w = 0; w < windows; w++) {
    const tap: Tap = {
      sites,
      async onActivation(layer, site, activation) {
        if (layer + 1 < model.config.layers) return;
        if (!sums.has(site)) sums.set(site, new StatisticsAccumulator(activation.cols, wanted));
        sums.get(site)!.add(await backend.read(activation));
      },
    };
    const stream = model.embed(tokens.subarray(w * window, (w + 1) * window));
    for (let layer = 0; layer < model.config.layers; layer++) await model.block(layer, stream, cache, 0, { tap });
    backend.release(stream);
  }
  return sums;
}

const onAll = ["llama", "qwen2"];
const families = [
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "smollm3",
  "phi3",
  "gemma2",
  "gemma3",
  "gpt2",
  "opt",
  "gpt_neox",
  "bert",
];

describe.each(families)("%s", (architecture) => {
  test.each(onAll.includes(architecture) ? backends : ["wasm"])(
    "block by block on %s gives the statistics of the whole model",
    async (backend) => {
      const checkpoint = await MemoryCheckpoint.golden(architecture);
      const description = await describeDecoder(checkpoint);
      const { config } = description;
      let counted = 0;
      using opened = await openBackend(backend, { threads: 1 });
      const run = await CalibrationRun.start(
        checkpoint,
        config.spec,
        opened,
        { tokens, window },
        { onWindow: () => counted++ },
      );
      const view = async (layer: number) =>
        loadable("here", await loadBlock(checkpoint, config, layer), config.spec.blocks[layer]);
      for (let layer = 0; layer + 1 < config.layers; layer++) await run.advance(await view(layer));
      const idle = opened.memoryBytes();
      const wanted = ["gram", "columnSquares", "columnAbsMax", "columnAbsMean"] as const;
      const before = run.streams.slice();
      const measured = await run.collect(await view(config.layers - 1), wanted);
      expect(run.streams).toEqual(before);
      expect(opened.memoryBytes()).toBe(idle);
      expect(counted).toBe(windows * config.layers);

      const expected = await wholeModel(checkpoint, wanted);
      expect([...measured.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [site, sums] of expected) {
        const statistics = measured.get(site)!;
        expect(statistics.tokens).toBe(windows * window);
        for (const id of wanted) {
          expect(relativeDifference(statistics.get(id), sums.finish().get(id)), `${site} ${id}`).toBeLessThan(1e-4);
        }
      }
    },
  );
});

test("an aborted signal stops it", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const description = await describeDecoder(checkpoint);
  const controller = new AbortController();
  using backend = await openBackend("reference");
  const run = await CalibrationRun.start(
    checkpoint,
    description.config.spec,
    backend,
    { tokens, window },
    { signal: controller.signal, onWindow: () => controller.abort() },
  );
  const block = await loadBlock(checkpoint, description.config, 0);
  await expect(run.advance(loadable("here", block, block.spec))).rejects.toThrow(/abort/i);
  expect(backend.memoryBytes()).toBe(0);
});

test("an embedding that is not finite is named, and so is a block whose inputs overflow", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const description = await describeDecoder(checkpoint);
  const name = "model.embed_tokens.weight";
  const values = checkpoint.values(name);
  values[tokens[3] * 64 + 5] = Number.NaN;
  checkpoint.set(name, [512, 64], values);
  const start = (backend: Backend) =>
    CalibrationRun.start(checkpoint, description.config.spec, backend, { tokens, window }, {});
  using reference = await openBackend("reference");
  await expect(start(reference)).rejects.toThrow(`${name}: row ${tokens[3]}, column 5 is NaN`);
  values[tokens[3] * 64 + 5] = 1e30;
  checkpoint.set(name, [512, 64], values);
  for (const backend of backends) {
    using opened = await openBackend(backend, { threads: 1 });
    const run = await start(opened);
    const block = await loadBlock(checkpoint, description.config, 0);
    const view = loadable("here", block, block.spec);
    await expect(run.collect(view, ["gram"])).rejects.toThrow(/block 0 .*attentionInput, input channel/);
    if (backend !== "webgpu") expect(opened.memoryBytes()).toBe(0);
  }
});
