import { type FormatError, Stage } from "../core/index.js";
import { type Checkpoint, findNonFinite } from "../io/index.js";
import type { Backend, ExpertMatrices, Matrix, RouteOptions, Vector } from "../kernels/index.js";
import { byteLengthOf, type TensorInfo, toFloat32 } from "../tensor/index.js";
import { embeddingFormat, packedMatrixBytes, padTo4, routerFormat } from "./footprint.js";
import {
  type BlockLayout,
  type DecoderLayout,
  type ExpectedLinear,
  type ExpectedTensor,
  layoutTensors,
  type MlpLayout,
  type RouterLayout,
} from "./layout.js";
import type { LoadModelOptions } from "./loadModel.js";
import { MatrixLoader } from "./matrixLoader.js";
import type { Stack, StackPart, WholeStack } from "./stack.js";
import type { MatrixChoice } from "./structure.js";

/** The roles of `BlockLayout`, loaded. */
export type BlockWeights = AttentionWeights & (MlpWeights | ExpertWeights);

interface AttentionWeights {
  inputNorm: Vector;
  qkv: Stack;
  headNorms?: { q: Vector; k: Vector };
  output: Stack;
  mlpNorm: Vector;
}

interface MlpWeights {
  gateUp: Stack;
  down: Stack;
}

/** A mixture of experts. */
export interface ExpertWeights {
  /** [experts rounded up to 4, hiddenSize] */
  router: Matrix;
  options: RouteOptions;
  /** [2 * intermediateSize, hiddenSize] and [hiddenSize, intermediateSize] of every expert */
  experts: { gateUp: ExpertMatrices; down: ExpertMatrices };
}

export interface DecoderWeights {
  /** [vocabSize, hiddenSize]; the head's matrix when the two are tied. */
  embedding: Matrix;
  blocks: readonly BlockWeights[];
  finalNorm: Vector;
  /** [logitCols, hiddenSize] */
  head: WholeStack;
  /** The largest sum of ranks in a stack; 0 without pairs of low rank. */
  lowRank: number;
  choices: readonly MatrixChoice[];
  /** See `Model.damage`. */
  damage: FormatError | undefined;
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
  options: LoadModelOptions,
): Promise<DecoderWeights> {
  const tied = layout.head === layout.embedding;
  const [vocabSize] = layout.head.shape;
  const headRows = padTo4(vocabSize);
  const packedBytes = packedMatrixBytes(checkpoint, layout, options.weights);
  backend.reserve({ weightBytes: packedBytes.loaded });

  const storedBytes = layoutTensors(layout).reduce((sum, t) => sum + byteLengthOf(checkpoint.tensors.get(t.name)!), 0);
  const stage = new Stage("load weights", storedBytes, "bytes", options.onProgress);
  let damage: FormatError | undefined;
  const onRead = (tensor: TensorInfo, bytes: Uint8Array, first = 0) => {
    stage.advance(bytes.byteLength, tensor.name);
    damage ??= findNonFinite(checkpoint.location, tensor, bytes, first);
  };
  let vectorBytes = 0;

  const vector = (values: Float32Array): Vector => {
    vectorBytes += values.byteLength;
    return backend.loadVector(values);
  };
  const readVector = async (expected: ExpectedTensor): Promise<Float32Array> => {
    options.signal?.throwIfAborted();
    const tensor = checkpoint.tensors.get(expected.name)!;
    const bytes = await checkpoint.read(expected.name);
    onRead(tensor, bytes);
    return toFloat32(tensor.dtype, bytes);
  };
  const norm = async (expected: ExpectedTensor) => vector(await readVector(expected));
  const loader = new MatrixLoader(checkpoint, backend, options, onRead);
  let lowRank = 0;
  let perToken = 0;
  /** Bytes of the experts that a token is not sent to. */
  let idle = 0;
  const matrix = async (tensors: readonly ExpectedTensor[], pad?: (rows: number) => number): Promise<Matrix> => {
    const loaded = await loader.load(tensors, pad);
    perToken += loaded.byteLength;
    return loaded;
  };
  const splitStack = async (linears: readonly ExpectedLinear[]): Promise<Stack> => {
    const pairs = linears.flatMap(({ lowRank }) => lowRank ?? []);
    const right = await matrix(pairs.map((pair) => pair.right));
    lowRank = Math.max(lowRank, right.rows);
    const parts: StackPart[] = [];
    let rowStart = 0;
    for (const { weight, lowRank: pair, bias } of linears) {
      const rankStart = right.parts.find(({ name }) => name === pair?.right.name)?.rowStart ?? 0;
      parts.push({
        rowStart,
        rows: weight.shape[0],
        ...(bias && { bias: await norm(bias) }),
        ...(pair && { lowRank: { left: await matrix([pair.left]), rankStart } }),
        ...((pair === undefined || pair.residual) && { direct: await matrix([weight]) }),
      });
      rowStart += weight.shape[0];
    }
    const rightOf = [...linears.keys()].filter((p) => linears[p].lowRank !== undefined);
    return { parts, right, rightOf };
  };
  const stack = async (linears: readonly ExpectedLinear[]): Promise<Stack> => {
    if (linears.some((linear) => linear.lowRank !== undefined)) return splitStack(linears);
    const loaded = await matrix(linears.map((linear) => linear.weight));
    if (linears.every((linear) => linear.bias === undefined)) return { matrix: loaded };
    const bias = new Float32Array(loaded.rows);
    for (const [p, linear] of linears.entries()) {
      if (linear.bias !== undefined) bias.set(await readVector(linear.bias), loaded.parts[p].rowStart);
    }
    return { matrix: loaded, bias: vector(bias) };
  };

  const mlp = async ({ mlps: [{ gateUp, down }] }: BlockLayout): Promise<MlpWeights> => ({
    gateUp: await stack(gateUp),
    down: await stack([down]),
  });
  const mixture = async (mlps: readonly MlpLayout[], router: RouterLayout): Promise<ExpertWeights> => {
    const experts = async (linears: readonly (readonly ExpectedLinear[])[]): Promise<ExpertMatrices> => {
      const loaded = await loader.loadExperts(linears.map((parts) => parts.map(({ weight }) => weight)));
      perToken += (loaded.byteLength * router.perToken) / mlps.length;
      idle += (loaded.byteLength * (mlps.length - router.perToken)) / mlps.length;
      return loaded;
    };
    const routerMatrix = await loader.loadAs(router.weight, routerFormat(checkpoint, router), padTo4);
    perToken += routerMatrix.byteLength;
    return {
      router: routerMatrix,
      options: { experts: mlps.length, perRow: router.perToken, normalise: router.normalise },
      experts: {
        gateUp: await experts(mlps.map(({ gateUp }) => gateUp)),
        down: await experts(mlps.map(({ down }) => [down])),
      },
    };
  };

  const blocks: BlockWeights[] = [];
  const paddingBias = new Float32Array(headRows).fill(paddingLogit, vocabSize);
  const head: WholeStack = {
    matrix: await matrix([layout.head], padTo4),
    ...(headRows > vocabSize && { bias: vector(paddingBias) }),
  };
  const embedding = tied
    ? head.matrix
    : await loader.loadAs(layout.embedding, embeddingFormat(checkpoint, layout, options.weights));
  const finalNorm = await norm(layout.finalNorm);
  for (const block of layout.blocks) {
    blocks.push({
      inputNorm: await norm(block.inputNorm),
      qkv: await stack(block.qkv),
      ...(block.headNorms && { headNorms: { q: await norm(block.headNorms.q), k: await norm(block.headNorms.k) } }),
      output: await stack([block.output]),
      mlpNorm: await norm(block.mlpNorm),
      ...(block.router === undefined ? await mlp(block) : await mixture(block.mlps, block.router)),
    });
  }
  return {
    embedding,
    blocks,
    finalNorm,
    head,
    lowRank,
    choices: loader.choices,
    damage,
    bytes: { perToken, loaded: perToken + idle + (tied ? 0 : embedding.byteLength) + vectorBytes },
  };
}
