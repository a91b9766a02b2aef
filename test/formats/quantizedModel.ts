import { memoryFiles, memorySinks, openCheckpoint, writeSafetensors } from "../../src/io/index.js";
import { jsonBytes } from "../../src/io/internal.js";
import type { DType } from "../../src/tensor/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { type Store, stackStores } from "../support/storeAs.mjs";

/** A tensor as it lies in a file. */
export interface Raw {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: Uint8Array;
}

/** The files of a checkpoint. */
export async function filesOf(config: object, tensors: readonly Raw[]): Promise<Map<string, Uint8Array>> {
  const files = new Map([["config.json", jsonBytes(config)]]);
  const written = tensors.map(({ bytes, dtype, ...info }) => ({
    ...info,
    dtype: dtype as DType,
    bytes: () => [bytes],
  }));
  await writeSafetensors(memorySinks(files), written);
  return files;
}

/** A golden model whose matrices in blocks are stored quantised, and the same with the values that the codes stand for. */
export async function quantizedModel(golden: string, store: Store) {
  const expected = await MemoryCheckpoint.golden(golden);
  const tensors: Raw[] = [];
  for (const tensor of [...expected.tensors.values()]) {
    const isStored =
      store === stackStores.mxfp4 ? /experts\.\w+_proj$/.test(tensor.name) : /_proj\.weight$/.test(tensor.name);
    if (!isStored) {
      tensors.push(tensor);
      continue;
    }
    const made = store.parts(tensor.name, { shape: tensor.shape, values: expected.values(tensor.name) });
    tensors.push(...made.raw);
    expected.set(tensor.name, tensor.shape, made.expected);
  }
  const files = await filesOf({ ...expected.config, quantization_config: store.record }, tensors);
  return { stored: await openCheckpoint(memoryFiles("m", files)), expected, files };
}
