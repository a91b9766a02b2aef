import { toFloat32 } from "../../tensor/index.js";
import type { ByteSource, ModelFiles } from "../byteSource.js";
import { memorySource } from "../memory.js";
import { type GgufHeader, readGgufHeader } from "./header.js";
import { Metadata } from "./metadata.js";
import { configFromMetadata } from "./toConfig.js";
import { tokenizerFromMetadata } from "./toTokenizer.js";

/** Under this name the weights of a GGUF model lie in a model directory, and in `ggufFiles`. */
export const ggufFileName = "model.gguf";

/**
 * A GGUF file seen as the directory of a model: its metadata read as `config.json`, `tokenizer.json` and
 * `tokenizer_config.json`, and the file itself as `model.gguf`. Only the header is read.
 * @param open opens the file; called once for the metadata and once for each opening of the weights
 * @throws FormatError
 */
export async function ggufFiles(
  location: string,
  open: () => Promise<ByteSource>,
): Promise<ModelFiles & { names(): Promise<string[]> }> {
  const files = await virtualFiles(location, open);
  return {
    location,
    names: async () => [...files.keys(), ggufFileName],
    async open(name) {
      if (name === ggufFileName) return open();
      const bytes = files.get(name);
      return bytes === undefined ? undefined : memorySource(`${location}: ${name}`, bytes);
    },
    async close() {},
  };
}

/** The JSON files that the metadata stands for, as bytes. */
async function virtualFiles(
  location: string,
  open: () => Promise<ByteSource>,
): Promise<ReadonlyMap<string, Uint8Array>> {
  const source = await open();
  try {
    const header = await readGgufHeader(source);
    const metadata = new Metadata(location, header.metadata);
    const config = configFromMetadata(metadata, header.tensors, await readRopeDivisors(source, header));
    const tokenizer = tokenizerFromMetadata(metadata);
    const files = new Map([["config.json", jsonBytes(config)]]);
    if (tokenizer !== undefined) {
      files.set("tokenizer.json", jsonBytes(tokenizer.tokenizer));
      files.set("tokenizer_config.json", jsonBytes(tokenizer.config));
    }
    return files;
  } finally {
    await source.close();
  }
}

export const ropeTensorName = "rope_freqs.weight";
/** Half of the widest head. */
const maxRopeDivisors = 4096;

async function readRopeDivisors(source: ByteSource, { tensors }: GgufHeader): Promise<Float32Array | undefined> {
  const tensor = tensors.get(ropeTensorName);
  if (tensor === undefined || tensor.type.dtype !== "F32" || tensor.byteLength > maxRopeDivisors * 4) return undefined;
  return toFloat32("F32", await source.read(tensor.byteOffset, tensor.byteLength));
}

const jsonBytes = (value: unknown) => new TextEncoder().encode(`${JSON.stringify(value)}\n`);
