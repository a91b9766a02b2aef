import { families, type GgufFamily, type ModelConfig } from "../../arch/index.js";
import { type JobOptions, Stage, UsageError } from "../../core/index.js";
import { elementCount } from "../../tensor/index.js";
import type { ByteSink } from "../byteSink.js";
import { defaultTemplate, readChatTemplates } from "../chatTemplates.js";
import type { Checkpoint } from "../checkpoint.js";
import { plainWeights, type Weights } from "../weights.js";
import { ggufName, isNorm, isTurned, perHeadOf } from "./architectures.js";
import { type GgufEncoding, type GgufTypeId, ggufEncodings } from "./encodeBlocks.js";
import { ropeTensorName } from "./files.js";
import { metadataOfConfig } from "./fromConfig.js";
import { metadataOfTokenizer } from "./fromTokenizer.js";
import { aligned, headerBytes, type TensorPlan, type TypedValue } from "./headerBytes.js";
import { ropeDivisors } from "./ropeFactors.js";
import { reorderRows } from "./rotaryRows.js";
import { readReordered, readTurned, runInCheckpoint } from "./rowOrders.js";
import { chatTemplateKey, chatTemplateNamesKey } from "./toTokenizer.js";

/** Type and name of the file to write. */
export interface WriteGgufOptions extends JobOptions {
  /** Type of all matrices whose rows are whole blocks; the others are f16, vectors f32. */
  type: GgufTypeId;
  /** `general.name`. */
  name: string;
  /** Written under `jobKey`: what tells this export from another. */
  job?: string;
}

/** Metadata that other tools pass over. */
export const jobKey = "rarefy.export.job";

/** About this many values are converted at a time. */
const chunkValues = 2 ** 20;

/**
 * Writes a model as one GGUF file, version 3, a few rows at a time: weights, config and tokenizer. Weights that lie on a
 * symmetric grid of at most 8 (Q8_0) or 4 bits (Q4_0) with groups of 32·k inputs and scales that f16 holds keep their codes.
 * @throws UsageError for a model or tokenizer that llama.cpp cannot run, before anything is written
 */
export async function writeGguf(
  sink: ByteSink,
  checkpoint: Checkpoint,
  config: ModelConfig,
  options: WriteGgufOptions,
): Promise<void> {
  const metadata = await metadataOf(checkpoint, config, options);
  // That there is one was checked with the metadata.
  const family = families[config.modelType].gguf!;
  const plans = (await plainWeights(checkpoint)).map((weights) =>
    planOf(family, weights, config.headDim, options.type),
  );
  let end = 0;
  const tensors: (TensorPlan & { bytes: () => AsyncIterable<Uint8Array> })[] = [];
  const place = (
    name: string,
    { type }: GgufEncoding,
    shape: readonly number[],
    bytes: () => AsyncIterable<Uint8Array>,
  ) => {
    tensors.push({ name, type, shape, offset: end, bytes });
    end += aligned((elementCount(shape) / type.blockSize) * type.blockBytes);
  };
  if (config.rope.type === "llama3") {
    const divisors = ropeDivisors(config.rope, config.rope.theta, config.headDim);
    place(ropeTensorName, ggufEncodings.f32, [divisors.length], async function* () {
      yield ggufEncodings.f32.encode(divisors);
    });
  }
  for (const { weights, encoding, name } of plans) {
    const headDim = family.rotaryNeighbours && /\.attn_[qk]\.(?:weight|bias)$/.test(name) ? config.headDim : undefined;
    const plain = family.plusOneNorms && isNorm(name) ? shifted(weights, 1) : weights;
    place(name, encoding, weights.shape, () => encodeRows(plain, encoding, headDim, options.signal));
  }

  const stage = new Stage("write GGUF", end, "bytes", options.onProgress);
  await sink.write(headerBytes(metadata, tensors));
  for (const { name, bytes } of tensors) {
    let written = 0;
    for await (const piece of bytes()) {
      await sink.write(piece);
      written += piece.byteLength;
      stage.advance(piece.byteLength, name);
    }
    await sink.write(new Uint8Array(aligned(written) - written));
  }
}

/** The weights with their rows as a file of the family has them. */
function arranged(family: GgufFamily, name: string, weights: Weights, headDim: number): Weights {
  const { shape, readRows } = weights;
  const [rows, cols = 1] = shape;
  if (isTurned(family, name)) {
    const read = readTurned(() => readRows(0, rows), rows, cols);
    return { name: weights.name, dtype: weights.dtype, shape: [cols, rows], readRows: read };
  }
  const order = perHeadOf(family, name, rows, headDim);
  if (order === undefined) return weights;
  return {
    name: weights.name,
    dtype: weights.dtype,
    shape,
    async readRows(start, count) {
      const pieces = await readReordered(order, (run) => runInCheckpoint(order, run), readRows, start, count);
      const out = new Float32Array(count * cols);
      let at = 0;
      for (const piece of pieces) {
        out.set(piece, at);
        at += piece.length;
      }
      return out;
    },
  };
}

/** The weights with a number added to each. */
const shifted = (weights: Weights, by: number): Weights => ({
  ...weights,
  readRows: async (start, count) => (await weights.readRows(start, count)).map((value) => value + by),
});

async function metadataOf(
  checkpoint: Checkpoint,
  config: ModelConfig,
  { type, name, job }: WriteGgufOptions,
): Promise<Map<string, TypedValue>> {
  const tokenizer = await checkpoint.readJson("tokenizer.json");
  const tokenizerConfig = await checkpoint.readJson("tokenizer_config.json");
  if (tokenizer === undefined)
    throw new UsageError(`${checkpoint.location} has no tokenizer.json, which GGUF holds too`);
  const ids = { bos: config.bosTokenId, eos: config.eosTokenIds[0] };
  return new Map<string, TypedValue>([
    ...metadataOfConfig(config),
    ["general.name", { string: name }],
    ["general.file_type", { u32: ggufEncodings[type].fileType }],
    ["general.quantization_version", { u32: 2 }],
    ...(job === undefined ? [] : [[jobKey, { string: job }] as const]),
    ...metadataOfTokenizer(tokenizer, tokenizerConfig, config.vocabSize, ids),
    ...metadataOfTemplates(await readChatTemplates(checkpoint.files)),
  ]);
}

/** The default has a key of its own; the others follow it in theirs, and in a list of their names. */
function metadataOfTemplates(templates: ReadonlyMap<string, string>): [string, TypedValue][] {
  const others = [...templates.keys()].filter((name) => name !== defaultTemplate);
  const entries = [...templates].map(([name, template]): [string, TypedValue] => [
    name === defaultTemplate ? chatTemplateKey : `${chatTemplateKey}.${name}`,
    { string: template },
  ]);
  return others.length === 0 ? entries : [...entries, [chatTemplateNamesKey, { strings: others }]];
}

function planOf(
  family: GgufFamily,
  stored: Weights,
  headDim: number,
  type: GgufTypeId,
): { weights: Weights; encoding: GgufEncoding; name: string } {
  const name = ggufName(family, stored.name);
  if (name === undefined) throw new UsageError(`${stored.name} has no name in GGUF files`);
  const weights = arranged(family, name, stored, headDim);
  const isMatrix = weights.shape.length === 2;
  const wholeBlocks = isMatrix && weights.shape[1] % ggufEncodings[type].type.blockSize === 0;
  return { weights, name, encoding: ggufEncodings[!isMatrix ? "f32" : wholeBlocks ? type : "f16"] };
}

async function* encodeRows(
  { shape, readRows, readScales32 }: Weights,
  { type, encode }: GgufEncoding,
  headDim: number | undefined,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  const [rows, cols = 1] = shape;
  // Whole heads, so that their rows can be reordered.
  const unit = headDim ?? 1;
  const step = Math.max(1, Math.floor(chunkValues / (cols * unit))) * unit;
  for (let start = 0; start < rows; start += step) {
    signal?.throwIfAborted();
    const count = Math.min(step, rows - start);
    const values = await readRows(start, count);
    const bytes = encode(values, await readScales32?.(start, count));
    const rowBytes = (cols / type.blockSize) * type.blockBytes;
    yield headDim === undefined ? bytes : reorderRows(bytes, rowBytes, headDim, "toNeighbours");
  }
}
