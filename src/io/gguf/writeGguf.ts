import { families, type GgufFamily, type ModelConfig } from "../../arch/index.js";
import { type JobOptions, Stage, UsageError } from "../../core/index.js";
import { elementCount } from "../../tensor/index.js";
import { rowsOfShape } from "../../tensor/internal.js";
import type { ByteSink } from "../byteSink.js";
import { defaultTemplate, readChatTemplates } from "../chatTemplates.js";
import type { Checkpoint } from "../checkpoint.js";
import { plainWeights, type Weights } from "../weights.js";
import { ggufName, isNorm, isRouter, isTurned, perHeadOf, stackOf } from "./architectures.js";
import { type GgufEncoding, type GgufTypeId, ggufEncodings } from "./encodeBlocks.js";
import { metadataOfConfig } from "./fromConfig.js";
import { metadataOfTokenizer } from "./fromTokenizer.js";
import { aligned, headerBytes, type TensorPlan, type TypedValue } from "./headerBytes.js";
import { type RopeTensors, ropeTensorNames, ropeTensorsOf } from "./ropeFactors.js";
import { reorderRows } from "./rotaryRows.js";
import { readReordered, readTurned, runInCheckpoint } from "./rowOrders.js";
import { joinedOf, partsOfJoined } from "./splitJoined.js";
import { chatTemplateKey, chatTemplateNamesKey } from "./toTokenizer.js";

/** Type and name of the file to write. */
export interface WriteGgufOptions extends JobOptions {
  /** Type of all matrices whose rows are whole blocks, in mxfp4 of experts, beside which others are q8_0; what is left is f16, vectors f32. */
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
  if (options.type === "mxfp4" && config.experts === undefined) {
    throw new UsageError("mxfp4 is a type of experts, and this model has none; write it in q4_0 or q8_0");
  }
  const metadata = await metadataOf(checkpoint, config, options);
  // That there is one was checked with the metadata.
  const family = families[config.modelType].gguf!;
  const plans = inStacks(family, await weightsForGguf(family, checkpoint), config).map((weights) =>
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
  for (const [kind, divisors] of Object.entries(ropeTensorsOf(config.rope, config.headDim))) {
    place(ropeTensorNames[kind as keyof RopeTensors], ggufEncodings.f32, [divisors.length], async function* () {
      yield ggufEncodings.f32.encode(divisors);
    });
  }
  for (const { weights, encoding, name } of plans) {
    const headDim = family.rotaryNeighbours && /\.attn_[qk]\.(?:weight|bias)$/.test(name) ? config.headDim : undefined;
    const plain = shifted(weights, normShift(family, weights.name));
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

/** The weights that a file of the family has. */
export const weightsForGguf = async ({ leftOut = [] }: GgufFamily, checkpoint: Checkpoint): Promise<Weights[]> =>
  (await plainWeights(checkpoint)).filter(({ name }) => !leftOut.includes(name));

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
const shifted = (weights: Weights, by: number): Weights =>
  by === 0
    ? weights
    : {
        ...weights,
        readRows: async (start, count) => (await weights.readRows(start, count)).map((value) => value + by),
      };

/** What files add to the weights of a norm. @param name in the checkpoint */
export const normShift = (family: GgufFamily, name: string): number =>
  family.plusOneNorms === true && isNorm(ggufName(family, name) ?? name) ? 1 : 0;

/** Tokens that llama.cpp marks in a file whose name says that it is a Phi-3. */
const phi3Tokens = ["</s>", "<unk>", "<s>", "<|endoftext|>"];

/** The name, but for Phi-3's where its tokens are missing: llama.cpp opens no file that has the one without the others. */
function openableName(name: string, tokenizer: ReadonlyMap<string, TypedValue>): string {
  const tokens = tokenizer.get("tokenizer.ggml.tokens");
  const isWhole =
    tokens !== undefined && "strings" in tokens && phi3Tokens.every((one) => tokens.strings.includes(one));
  return isWhole ? name : name.replace(/phi-?3/gi, "Phi 3");
}

async function metadataOf(
  checkpoint: Checkpoint,
  config: ModelConfig,
  { type, name, job }: WriteGgufOptions,
): Promise<Map<string, TypedValue>> {
  const tokenizer = await checkpoint.readJson("tokenizer.json");
  const tokenizerConfig = await checkpoint.readJson("tokenizer_config.json");
  if (tokenizer === undefined)
    throw new UsageError(`${checkpoint.location} has no tokenizer.json, which GGUF holds too`);
  const { types } = config.spec.embedding;
  const ids = { bos: config.bosTokenId, eos: config.eosTokenIds[0] };
  const ofTokenizer = metadataOfTokenizer(tokenizer, tokenizerConfig, config.vocabSize, ids);
  return new Map<string, TypedValue>([
    ...metadataOfConfig(config),
    ["general.name", { string: openableName(name, ofTokenizer) }],
    ["general.file_type", { u32: ggufEncodings[type].fileType }],
    ["general.quantization_version", { u32: 2 }],
    ...(job === undefined ? [] : [[jobKey, { string: job }] as const]),
    ...ofTokenizer,
    ...(types === undefined ? [] : [["tokenizer.ggml.token_type_count", { u32: types.shape[0] }] as const]),
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

/** A tensor to write, whose name in the file is known where it is a stack. */
type Writable = Weights & { stack?: string };

/**
 * The weights with the maps of all experts of a block in one tensor, [experts, rows, cols], in the place of the first, and what
 * a file has in parts as its parts.
 */
function inStacks(family: GgufFamily, all: readonly Weights[], config: ModelConfig): Writable[] {
  const stacks = new Map<string, Weights[]>();
  const out: (Writable | { stack: string })[] = [];
  for (const weights of all) {
    const found = stackOf(family, weights.name);
    const parts = partsOfJoined(family, weights, config);
    if (parts !== undefined) out.push(...parts.map((part) => ({ ...part, stack: part.name })));
    else if (found === undefined) out.push(weights);
    else {
      if (!stacks.has(found.name)) {
        stacks.set(found.name, []);
        out.push({ stack: found.name });
      }
      stacks.get(found.name)![found.expert] = weights;
    }
  }
  return out.map((one) => ("name" in one ? one : stacked(one.stack, stacks.get(one.stack)!)));
}

function stacked(stack: string, experts: readonly Weights[]): Writable {
  const [{ shape, dtype }] = experts;
  const [rows, cols] = shape;
  const read = async (
    start: number,
    count: number,
    width: number,
    readOf: (expert: Weights) => Weights["readRows"],
  ): Promise<Float32Array> => {
    const out = new Float32Array(count * width);
    for (let row = start; row < start + count; ) {
      const within = row % rows;
      const length = Math.min(rows - within, start + count - row);
      out.set(await readOf(experts[Math.floor(row / rows)])(within, length), (row - start) * width);
      row += length;
    }
    return out;
  };
  return {
    name: stack,
    stack,
    dtype,
    shape: [experts.length, rows, cols],
    readRows: (start, count) => read(start, count, cols, ({ readRows }) => readRows),
    ...(experts.every(({ readScales32 }) => readScales32 !== undefined) && {
      readScales32: (start: number, count: number) => read(start, count, cols / 32, (expert) => expert.readScales32!),
    }),
  };
}

/** The type that a tensor gets, of a checkpoint or a part of it in a file. */
export function typeOf(
  family: GgufFamily,
  { name, shape }: Pick<Weights, "name" | "shape">,
  type: GgufTypeId,
): GgufTypeId {
  const joined = joinedOf(family, name);
  const inFile = joined?.parts[0] ?? stackOf(family, name)?.name ?? ggufName(family, name) ?? name;
  if (shape.length === 1 || isRouter(inFile) || inFile.endsWith(".bias")) return "f32";
  const [rows, cols] = shape.slice(-2);
  const width = isTurned(family, inFile) || joined?.units === "experts" ? rows : cols;
  const wanted = type === "mxfp4" && !inFile.endsWith("_exps.weight") ? "q8_0" : type;
  return width % ggufEncodings[wanted].type.blockSize === 0 ? wanted : "f16";
}

function planOf(
  family: GgufFamily,
  stored: Writable,
  headDim: number,
  type: GgufTypeId,
): { weights: Weights; encoding: GgufEncoding; name: string } {
  const name = stored.stack ?? ggufName(family, stored.name);
  if (name === undefined) throw new UsageError(`${stored.name} has no name in GGUF files`);
  const weights = arranged(family, name, stored, headDim);
  return { weights, name, encoding: ggufEncodings[typeOf(family, stored, type)] };
}

async function* encodeRows(
  { shape, readRows, readScales32 }: Weights,
  { type, encode }: GgufEncoding,
  headDim: number | undefined,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  const { rows, cols } = rowsOfShape(shape);
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
