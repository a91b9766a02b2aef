import { FormatError } from "../../core/index.js";
import { toFloat32 } from "../../tensor/index.js";
import type { ByteSource, ModelFiles } from "../byteSource.js";
import { memorySource } from "../memory.js";
import { Metadata } from "./metadata.js";
import { ggufPartName } from "./names.js";
import { type GgufParts, readGgufParts } from "./parts.js";
import { maxRopeDivisors, type RopeTensors, ropeTensorNames } from "./ropeFactors.js";
import { configFromMetadata } from "./toConfig.js";
import { tokenizerFromMetadata } from "./toTokenizer.js";

/**
 * A GGUF file seen as the directory of a model: its metadata read as `config.json`, `tokenizer.json` and
 * `tokenizer_config.json`, and the file itself as `model.gguf`. Only the header is read.
 * @param open opens the file, or, of a model in parts, part 0, 1 …: undefined when there is none; called once for the
 * metadata and once for each opening of the weights
 * @throws FormatError
 */
export async function ggufFiles(
  location: string,
  open: (part: number) => Promise<ByteSource | undefined>,
): Promise<ModelFiles & { names(): Promise<string[]> }> {
  const { files, count } = await virtualFiles(location, open);
  const partNames = Array.from({ length: count }, (_, part) => ggufPartName(part, count));
  return {
    location,
    names: async () => [...files.keys(), ...partNames],
    async open(name) {
      const part = partNames.indexOf(name);
      if (part >= 0) return open(part);
      const bytes = files.get(name);
      return bytes === undefined ? undefined : memorySource(`${location}: ${name}`, bytes);
    },
    async close() {},
  };
}

/** The JSON files that the metadata stands for, as bytes. */
async function virtualFiles(
  location: string,
  open: (part: number) => Promise<ByteSource | undefined>,
): Promise<{ files: ReadonlyMap<string, Uint8Array>; count: number }> {
  const sources: ByteSource[] = [];
  const openPart = async (part: number) => {
    const source = await open(part);
    if (source !== undefined) sources.push(source);
    return source;
  };
  try {
    const first = await openPart(0);
    if (first === undefined) throw new FormatError({ file: location, problem: "there is no such file" });
    const parts = await readGgufParts(first, openPart);
    const metadata = new Metadata(location, parts.metadata);
    const config = configFromMetadata(metadata, parts.tensors, await readRopeTensors(parts));
    const tokenizer = tokenizerFromMetadata(metadata);
    const files = new Map([["config.json", jsonBytes(config)]]);
    if (tokenizer !== undefined) {
      files.set("tokenizer.json", jsonBytes(tokenizer.tokenizer));
      files.set("tokenizer_config.json", jsonBytes(tokenizer.config));
    }
    return { files, count: sources.length };
  } finally {
    await Promise.all(sources.map((source) => source.close()));
  }
}

async function readRopeTensors({ tensors }: GgufParts): Promise<RopeTensors> {
  const read = async (kind: keyof RopeTensors): Promise<Float32Array | undefined> => {
    const tensor = tensors.get(ropeTensorNames[kind]);
    if (tensor === undefined || tensor.type.dtype !== "F32" || tensor.byteLength > maxRopeDivisors * 4)
      return undefined;
    return toFloat32("F32", await tensor.source.read(tensor.byteOffset, tensor.byteLength));
  };
  return { byFrequency: await read("byFrequency"), short: await read("short"), long: await read("long") };
}

const jsonBytes = (value: unknown) => new TextEncoder().encode(`${JSON.stringify(value)}\n`);
