import {
  type BlockSpec,
  isTied,
  type LinearSpec,
  linearsOf,
  type ModelSpec,
  type NamedShape,
  type TensorRef,
  tensorsOf,
} from "../arch/index.js";
import type { TensorInfo } from "../tensor/index.js";

/** How a linear map is stored: as it is described, or as a pair of low rank in its place, perhaps with what is added to it. */
export interface StoredMap {
  map: LinearSpec;
  /** W, or what is added to the pair. */
  direct?: TensorRef;
  /** [rows, rank] and [rank, cols]: W = left · right (+ direct) */
  lowRank?: { left: TensorRef; right: TensorRef; rank: number };
}

type Tensors = ReadonlyMap<string, TensorInfo>;

/** Names of the two factors that take the place of a tensor, W = left · right (+ the tensor, if it is there too). */
export function factorNames(tensor: string): { left: string; right: string } {
  const stem = tensor.replace(/\.weight$/, "");
  return { left: `${stem}.low_rank.left`, right: `${stem}.low_rank.right` };
}

/** @param stored the tensors of the checkpoint, which tell where a pair of low rank takes the place of a matrix */
export function storedMap(map: LinearSpec, stored: Tensors): StoredMap {
  const { tensor } = map.weight;
  const names = factorNames(tensor);
  const right = stored.get(names.right);
  if (right === undefined) return { map, direct: map.weight };
  const [rank] = right.shape;
  return {
    map,
    lowRank: {
      left: { tensor: names.left, shape: [map.rows, rank] },
      right: { tensor: right.name, shape: [rank, map.cols] },
      rank,
    },
    ...(stored.has(tensor) && { direct: map.weight }),
  };
}

/** The matrices that a map is stored as, with their rows and columns as they are multiplied. */
export function storedMatrices({ map, direct, lowRank }: StoredMap): { ref: TensorRef; rows: number; cols: number }[] {
  const { rows, cols } = map;
  return [
    ...(lowRank
      ? [
          { ref: lowRank.left, rows, cols: lowRank.rank },
          { ref: lowRank.right, rows: lowRank.rank, cols },
        ]
      : []),
    ...(direct ? [{ ref: direct, rows, cols }] : []),
  ];
}

/** As `tensorsOf`, with pairs of low rank where they are stored. */
export function storedTensors(spec: ModelSpec, stored: Tensors): NamedShape[] {
  const inPlace = new Map<string, NamedShape[]>();
  for (const map of spec.blocks.flatMap((block: BlockSpec) => linearsOf(block))) {
    const form = storedMap(map, stored);
    if (form.lowRank === undefined) continue;
    const refs = storedMatrices(form).map(({ ref }) => ({ name: ref.tensor, shape: ref.shape }));
    inPlace.set(map.weight.tensor, refs);
  }
  return tensorsOf(spec).flatMap((tensor) => inPlace.get(tensor.name) ?? [tensor]);
}

/** The maps of the head whose matrices are not the embedding's. */
export function ownHead(spec: ModelSpec): LinearSpec[] {
  const { head } = spec;
  if (head.kind === "none" || isTied(spec)) return [];
  return head.kind === "classifier" ? [...linearsOf(head), head.map] : [head.map];
}
