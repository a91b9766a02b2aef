import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type Checkpoint, openCheckpoint } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { openBackend } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { elementCount, type TensorInfo } from "../tensor/index.js";
import { countParameters, embeddingFormat, kvBytesPerPosition, packedMatrixBytes } from "./footprint.js";
import { describeDecoder, loadModel } from "./loadModel.js";

const directory = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

async function describe(path: string) {
  const checkpoint = await openCheckpoint(directoryFiles(directory(path)));
  return { checkpoint, ...(await describeDecoder(checkpoint)) };
}

/** Tied and untied embeddings, and two of four experts for a token. */
const models = ["models/tiny-6m", "test/golden/arch/qwen3", "test/golden/arch/mixtral"];

test.each(models)("the parameters of %s add up to what its files hold", async (path) => {
  const { checkpoint, config } = await describe(path);
  const tensors = [...checkpoint.tensors.values()];
  const elements = (some: readonly TensorInfo[]) => some.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const stored = elements(tensors);
  const { total, active, ...kinds } = countParameters(config.spec, checkpoint.tensors);
  expect(total).toBe(stored);
  expect(Object.values(kinds).reduce((sum, count) => sum + count)).toBe(stored);
  expect(active).toBe(stored - elements(tensors.filter(({ name }) => name.includes(".experts."))) / 2);
  await checkpoint.close();
});

const formats = Object.keys(weightFormats) as WeightFormatId[];
test.each(models.flatMap((path) => formats.map((format) => [path, format] as const)))(
  "the matrices of %s in %s take what is foretold",
  async (path, format) => {
    const { checkpoint, config } = await describe(path);
    using backend = await openBackend("reference");
    using model = await loadModel(checkpoint, backend, { weights: format });
    const foretold = packedMatrixBytes(checkpoint, config.spec, format);
    using cache = model.createCache(3);
    const logits = await model.forward(Uint32Array.of(1), cache, 0);
    backend.release(logits!);
    expect(backend.takeCounters().weightBytesRead).toBe(foretold.perToken);
    expect(model.weightBytes.loaded - foretold.loaded).toBe(
      countParameters(config.spec, checkpoint.tensors).vectors * 4,
    );
    expect(cache.byteLength).toBe(kvBytesPerPosition(config) * 3);
    await checkpoint.close();
  },
);

test("untied embeddings keep their stored precision", async () => {
  const { checkpoint, config } = await describe("test/golden/arch/qwen3");
  await checkpoint.close();
  const untied = config.spec;
  const { tensor: name, shape } = untied.embedding.table;
  const stored = (dtype: TensorInfo["dtype"]) =>
    ({ tensors: new Map([[name, { name, shape, dtype }]]) }) as unknown as Checkpoint;
  expect(embeddingFormat(stored("BF16"), untied, "q4")).toBe("bf16");
  expect(embeddingFormat(stored("F16"), untied, "q4")).toBe("bf16");
  expect(embeddingFormat(stored("F16"), untied, "f32")).toBe("f32");
  expect(embeddingFormat(stored("F32"), untied, "q4")).toBe("f32");
});
