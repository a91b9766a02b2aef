import {
  type BlockSpec,
  distinctBlocks,
  isTied,
  kvBytesOf,
  type LinearSpec,
  linearsOf,
  type ModelConfig,
  type ModelSpec,
  type Step,
  type TensorRef,
} from "../arch/index.js";
import { activeShares, choiceAt, latentAt, type Place, placesOf, smallMapsOf } from "../arch/internal.js";
import type { Checkpoint } from "../io/index.js";
import { isWhole } from "../io/internal.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import {
  dtypeBytes,
  elementCount,
  type Factors,
  factorBytes,
  factorParameters,
  type MatrixShape,
} from "../tensor/index.js";
import { chainShapes } from "../tensor/internal.js";
import { chainFormat } from "./chainFormat.js";
import { ownHead, storedMap, storedMatrices, storedTensors } from "./forms.js";

/** Rows of the head, and columns of the logits, which come in fours. */
export const padTo4 = (n: number): number => Math.ceil(n / 4) * 4;

type Stored = Pick<Checkpoint, "tensors">;

/**
 * The format of embeddings that are not tied to the head: they are looked up, not multiplied, so they stay in the
 * smallest format that holds them as they are stored. f16 loses bits in bf16, which only `f32` models mind.
 */
export function embeddingFormat({ tensors }: Stored, spec: ModelSpec, weights: WeightFormatId): WeightFormatId {
  if (isTied(spec)) return weights;
  const dtype = tensors.get(spec.embedding.table.tensor)?.dtype;
  return dtype === "F32" || (dtype === "F16" && weights === "f32") ? "f32" : "bf16";
}

/** The format of learned positions and of types, which are few and looked up. */
export const positionFormat = ({ tensors }: Stored, { tensor }: TensorRef): WeightFormatId =>
  tensors.get(tensor)?.dtype === "BF16" ? "bf16" : "f32";

/** The format of what decides, as a router: it is small, and rounding it more than it is stored would change what is chosen. */
export const routerFormat = ({ tensors }: Stored, { map }: { map: LinearSpec }): WeightFormatId =>
  tensors.get(map.weight.tensor)?.dtype === "BF16" ? "bf16" : "f32";

/** The format of a map of which single rows are read, in every format: whole numbers lie in columns. */
export const rowsFormat = (weights: WeightFormatId): "f32" | "bf16" => (weights === "f32" ? "f32" : "bf16");

/** Bytes of the matrices that factors are multiplied as. */
const chainBytes = (form: Factors, shape: MatrixShape): number => {
  const bytes = (rows: number, cols: number) => weightFormats[chainFormat].byteLength(rows, cols);
  if (form.kind === "morphemes") {
    const { order, morphemes, width, rank, norm } = form;
    const [terms, padded, { cols }] = [rank * morphemes, padTo4(shape.rows), shape];
    const ofNorm = norm ? bytes(cols, cols) + bytes(4, cols) + bytes(padded, 4) + 4 * padded : 0;
    return bytes(padTo4(terms), width) + 4 * (terms * width + padded * order) + ofNorm;
  }
  const dense = form.kind === "tensor-train" && form.dense ? [{ rows: form.dense.rows, cols: shape.cols }] : [];
  return [...(chainShapes(form, shape) ?? []), ...dense].reduce((sum, { rows, cols }) => sum + bytes(rows, cols), 0);
};

/** Maps behind latents, which are packed head by head (`latentAttention`), with the number of heads. */
const headsOfExpanded = ({ steps }: BlockSpec): [LinearSpec, number][] =>
  steps.flatMap((_, s) => {
    const found = latentAt(steps, s);
    return found?.expand.maps.map(({ map }): [LinearSpec, number] => [map, found.attend.heads]) ?? [];
  });

/** Bytes of all packed matrices of a model: those that every token is multiplied with, and all that are loaded. */
export function packedMatrixBytes(
  checkpoint: Stored,
  spec: ModelSpec,
  weights: WeightFormatId,
): { perToken: number; loaded: number } {
  const bytes = (id: WeightFormatId, rows: number, cols: number) => weightFormats[id].byteLength(rows, cols);
  const heads = new Map(spec.blocks.flatMap(headsOfExpanded));
  const ofMap = (map: LinearSpec, format = weights) => {
    const count = heads.get(map) ?? 1;
    const { factors } = storedMap(map, checkpoint.tensors);
    if (factors !== undefined && count === 1) return chainBytes(factors.form, map);
    return storedMatrices(storedMap(map, checkpoint.tensors)).reduce(
      (sum, { rows, cols }) => sum + count * bytes(format, rows / count, cols),
      0,
    );
  };
  let perToken = 0;
  if (spec.head.kind === "classifier") for (const map of linearsOf(spec.head)) perToken += ofMap(map);
  const { head } = spec;
  if (head.kind !== "none") {
    const { factors } = storedMap(head.map, checkpoint.tensors);
    perToken += factors ? chainBytes(factors.form, head.map) : bytes(weights, padTo4(head.map.rows), head.map.cols);
  }
  let idle = 0;
  // What a token is multiplied with more than once, where layers share their weights, is loaded once.
  let again = 0;
  const met = new Set<BlockSpec>();
  for (const block of spec.blocks) {
    let own = 0;
    const read = new Set(
      block.steps.flatMap((_, s) => choiceAt(block.steps, s)?.linear.maps.map(({ map }) => map) ?? []),
    );
    for (const [map, share] of activeShares(block)) {
      const all = read.has(map) ? ofMap(map, rowsFormat(weights)) : ofMap(map);
      perToken += all * share;
      idle += all * (1 - share);
      own += all;
    }
    for (const map of block.steps.flatMap(smallMapsOf)) {
      const deciding = bytes(routerFormat(checkpoint, { map }), padTo4(map.rows), map.cols);
      perToken += deciding;
      own += deciding;
    }
    if (met.has(block)) again += own;
    met.add(block);
  }
  perToken = Math.round(perToken);
  idle = Math.round(idle - again);
  const { positions, types } = spec.embedding;
  for (const table of [positions?.table, types]) {
    if (table === undefined) continue;
    const [rows, cols] = table.shape;
    idle += bytes(positionFormat(checkpoint, table), rows, cols);
  }
  const [rows, cols] = spec.embedding.table.shape;
  const factors = checkpoint.tensors.get(spec.embedding.table.tensor)?.factors;
  // Rows are made on the host, also of a table whose factors the head is multiplied with.
  if (factors) return { perToken, loaded: perToken + idle + factorBytes(factors.form, { rows, cols }, dtypeBytes.F32) };
  if (isTied(spec)) return { perToken, loaded: perToken + idle };
  return { perToken, loaded: perToken + idle + bytes(embeddingFormat(checkpoint, spec, weights), rows, cols) };
}

/** Number of parameters by what they are for. Tied embeddings count once, as embeddings. */
export interface ParameterCounts {
  /** Of tokens, and of positions and types where those are learned. */
  embedding: number;
  attention: number;
  /** MLPs that every token takes. */
  mlp: number;
  /** Of layers that choose: all their experts, and those beside them that every token takes. */
  experts: number;
  /** What chooses among experts, and which tokens take which layers; 0 without any. */
  router: number;
  /** 0 when tied. */
  head: number;
  /** Norm weights and biases. */
  vectors: number;
  total: number;
  /** Of the total, those that work for one token: not embeddings that are only looked up, and of experts only the chosen. */
  active: number;
  /** Of the experts, those that work for one token. */
  activeExperts: number;
}

/** @param stored the tensors of the checkpoint, for pairs of low rank and factors */
export function countParameters(spec: ModelSpec, stored: Checkpoint["tensors"]): ParameterCounts {
  const { embedding } = spec;
  const numbers = (name: string, shape: readonly number[]) => {
    const form = stored.get(name)?.factors?.form;
    return form === undefined ? elementCount(shape) : factorParameters(form, { rows: shape[0], cols: shape[1] });
  };
  const sum = (maps: readonly LinearSpec[]) =>
    maps
      .flatMap((map) => storedMatrices(storedMap(map, stored)))
      .reduce((all, { ref, rows, cols }) => all + (isWhole(ref) ? numbers(ref.tensor, [rows, cols]) : rows * cols), 0);
  const own = distinctBlocks(spec);
  const within = (part: Place["module"], blocks = own) =>
    blocks.flatMap((block) => placesOf(block).filter(({ module }) => module === part)).map(({ map }) => map);
  const chooses = (block: BlockSpec) => block.steps.some((step) => step.do === "mixture");
  const routers = own.flatMap(({ steps }) => steps.flatMap((step) => (step.do === "mixture" ? [step.router.map] : [])));
  routers.push(...own.flatMap(({ gates = [] }) => gates.map(({ map }) => map)));
  const small = (...kinds: Step["do"][]) =>
    own.flatMap(({ steps }) => steps.flatMap((step) => (kinds.includes(step.do) ? smallMapsOf(step) : [])));
  const scales = own.flatMap(({ steps }) =>
    steps.flatMap((step) =>
      step.do === "multiplicative" ? step.maps.map((map) => elementCount(map.scales.shape)) : [],
    ),
  );
  const elements = (shape: readonly number[] | undefined) => (shape === undefined ? 0 : elementCount(shape));
  const kinds = {
    embedding:
      numbers(embedding.table.tensor, embedding.table.shape) +
      elements(embedding.positions?.table.shape) +
      elements(embedding.types?.shape),
    attention:
      sum([...within("self_attn"), ...small("attend", "multiplicative", "convolve")]) +
      scales.reduce((all, count) => all + count, 0),
    mlp: sum([
      ...within(
        "mlp",
        own.filter((block) => !chooses(block)),
      ),
      ...small("choose"),
    ]),
    experts: sum(within("mlp", own.filter(chooses))),
    router: sum(routers),
    head: sum(ownHead(spec)),
  };
  const total = storedTensors(spec, stored).reduce((all, { name, shape }) => all + numbers(name, shape), 0);
  const vectors = total - Object.values(kinds).reduce((all, count) => all + count, 0);
  let idle = 0;
  for (const block of own) for (const [map, share] of activeShares(block)) idle += sum([map]) * (1 - share);
  const active = Math.round(total - idle - (isTied(spec) ? 0 : kinds.embedding));
  return { ...kinds, vectors, total, active, activeExperts: Math.round(kinds.experts - idle) };
}

/** Keys and values of one position in f32, over all layers. */
export const kvBytesPerPosition = ({ spec }: Pick<ModelConfig, "spec">): number =>
  spec.blocks.reduce((sum, block) => sum + kvBytesOf(block), 0);
