import { type JobOptions, Stage } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import type { Backend, Matrix, Vector } from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import { byteLengthOf } from "../tensor/index.js";
import { embeddingFormat, packedMatrixBytes, padTo4 } from "./footprint.js";
import { type DecoderLayout, type ExpectedLinear, type ExpectedTensor, layoutTensors } from "./layout.js";
import { tensorRows } from "./tensorRows.js";

/** Matrices stacked along their outputs because they share their input, with their biases. */
export interface Stack {
  matrix: Matrix;
  /** f32 [matrix.rows] */
  bias?: Vector;
}

/** The roles of `BlockLayout`, loaded. */
export interface BlockWeights {
  inputNorm: Vector;
  qkv: Stack;
  headNorms?: { q: Vector; k: Vector };
  output: Stack;
  mlpNorm: Vector;
  gateUp: Stack;
  down: Stack;
}

export interface DecoderWeights {
  /** [vocabSize, hiddenSize]; the head's matrix when the two are tied. */
  embedding: Matrix;
  blocks: readonly BlockWeights[];
  finalNorm: Vector;
  /** [logitCols, hiddenSize] */
  head: Stack;
  /** See `Model.weightBytes`. */
  bytes: { perToken: number; loaded: number };
}

/** Logits of the columns that pad the vocabulary to a multiple of 4: never the largest, of no weight in a softmax. */
const paddingLogit = -1e30;

/**
 * Loads every tensor of the layout, packing matrices straight from the file. The layout must have been checked.
 */
export async function loadWeights(
  checkpoint: Checkpoint,
  backend: Backend,
  layout: DecoderLayout,
  format: WeightFormatId,
  job: JobOptions,
): Promise<DecoderWeights> {
  const tied = layout.head === layout.embedding;
  const [vocabSize] = layout.head.shape;
  const headRows = padTo4(vocabSize);
  const packedBytes = packedMatrixBytes(checkpoint, layout, format);
  backend.reserve({ weightBytes: packedBytes.loaded });

  const storedBytes = layoutTensors(layout).reduce((sum, t) => sum + byteLengthOf(checkpoint.tensors.get(t.name)!), 0);
  const stage = new Stage("load weights", storedBytes, "bytes", job.onProgress);
  const advance = (byteLength: number, name: string) => stage.advance(byteLength, name);
  let vectorBytes = 0;

  const vector = (values: Float32Array): Vector => {
    vectorBytes += values.byteLength;
    return backend.loadVector(values);
  };
  const readVector = async (expected: ExpectedTensor): Promise<Float32Array> => {
    job.signal?.throwIfAborted();
    const values = await checkpoint.readFloat32(expected.name);
    advance(byteLengthOf(checkpoint.tensors.get(expected.name)!), expected.name);
    return values;
  };
  const norm = async (expected: ExpectedTensor) => vector(await readVector(expected));
  const matrix = (tensors: readonly ExpectedTensor[], id: WeightFormatId, pad = (rows: number) => rows) => {
    const sources = tensors.map(({ name, shape }) => tensorRows(checkpoint, name, pad(shape[0]), advance));
    return backend.loadMatrix(sources, id, { signal: job.signal });
  };
  const stack = async (linears: readonly ExpectedLinear[]): Promise<Stack> => {
    const loaded = await matrix(
      linears.map((linear) => linear.weight),
      format,
    );
    if (linears.every((linear) => linear.bias === undefined)) return { matrix: loaded };
    const bias = new Float32Array(loaded.rows);
    for (const [p, linear] of linears.entries()) {
      if (linear.bias !== undefined) bias.set(await readVector(linear.bias), loaded.parts[p].rowStart);
    }
    return { matrix: loaded, bias: vector(bias) };
  };

  const blocks: BlockWeights[] = [];
  const head: Stack = { matrix: await matrix([layout.head], format, padTo4) };
  if (headRows > vocabSize) head.bias = vector(new Float32Array(headRows).fill(paddingLogit, vocabSize));
  const embedding = tied ? head.matrix : await matrix([layout.embedding], embeddingFormat(checkpoint, layout, format));
  const finalNorm = await norm(layout.finalNorm);
  for (const block of layout.blocks) {
    blocks.push({
      inputNorm: await norm(block.inputNorm),
      qkv: await stack(block.qkv),
      ...(block.headNorms && { headNorms: { q: await norm(block.headNorms.q), k: await norm(block.headNorms.k) } }),
      output: await stack([block.output]),
      mlpNorm: await norm(block.mlpNorm),
      gateUp: await stack(block.gateUp),
      down: await stack([block.down]),
    });
  }
  return { embedding, blocks, finalNorm, head, bytes: { ...packedBytes, loaded: packedBytes.loaded + vectorBytes } };
}
