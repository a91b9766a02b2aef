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
import type { LogicalTensor, StoredFactors } from "../io/index.js";
import { homeTensor, isWhole } from "../io/internal.js";

/** How a linear map is stored: as it is described, as a pair of low rank in its place, perhaps with what is added to it, or as factors. */
export interface StoredMap {
  map: LinearSpec;
  /** W, or what is added to the pair. */
  direct?: TensorRef;
  /** [rows, rank] and [rank, cols]: W = left · right (+ direct) */
  lowRank?: { left: TensorRef; right: TensorRef; rank: number };
  /** What `direct` is made of, where it is not stored entry by entry. */
  factors?: StoredFactors;
}

type Tensors = ReadonlyMap<string, Pick<LogicalTensor, "name" | "shape" | "factors">>;

/** Names of the two factors that take the place of a tensor, W = left · right (+ the tensor, if it is there too). */
export function factorNames(tensor: string): { left: string; right: string } {
  const stem = tensor.replace(/\.weight$/, "");
  return { left: `${stem}.low_rank.left`, right: `${stem}.low_rank.right` };
}

/** Where a map's W, or what is added to its pair, lies. */
export function directRef(map: LinearSpec, stored: { has(name: string): boolean }): TensorRef {
  const tensor = homeTensor(map);
  return tensor !== map.weight.tensor && stored.has(tensor) ? { tensor, shape: [map.rows, map.cols] } : map.weight;
}

/** @param stored the tensors of the checkpoint, which tell where a pair of low rank, or factors, take the place of a matrix */
export function storedMap(map: LinearSpec, stored: Tensors): StoredMap {
  const home = homeTensor(map);
  const names = factorNames(home);
  const direct = directRef(map, stored);
  const right = stored.get(names.right);
  if (right === undefined) {
    const factors = isWhole(direct) ? stored.get(direct.tensor)?.factors : undefined;
    return { map, direct, ...(factors && { factors }) };
  }
  const [rank] = right.shape;
  return {
    map,
    lowRank: {
      left: { tensor: names.left, shape: [map.rows, rank] },
      right: { tensor: right.name, shape: [rank, map.cols] },
      rank,
    },
    ...(stored.has(home) && { direct }),
  };
}

/** The matrices that a map is stored as, with their rows and columns as they are multiplied; what factors make is one of them. */
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

/** As `tensorsOf`, with pairs of low rank where they are stored, and the tensors of maps alone. */
export function storedTensors(spec: ModelSpec, stored: Tensors): NamedShape[] {
  const inPlace = new Map<string, Map<string, NamedShape>>();
  const moved = new Set<string>();
  for (const map of spec.blocks.flatMap((block: BlockSpec) => linearsOf(block))) {
    const { tensor } = map.weight;
    const refs = storedMatrices(storedMap(map, stored)).map(({ ref }) => ref);
    const there = inPlace.get(tensor) ?? new Map<string, NamedShape>();
    for (const ref of refs) there.set(ref.tensor, { name: ref.tensor, shape: ref.shape });
    inPlace.set(tensor, there);
    if (refs.some((ref) => ref.tensor !== tensor)) moved.add(tensor);
  }
  return tensorsOf(spec).flatMap((tensor) =>
    moved.has(tensor.name) ? [...inPlace.get(tensor.name)!.values()] : [tensor],
  );
}

/** The maps of the head whose matrices are not the embedding's. */
export function ownHead(spec: ModelSpec): LinearSpec[] {
  const { head } = spec;
  if (head.kind === "none" || isTied(spec)) return [];
  return head.kind === "classifier" ? [...linearsOf(head), head.map] : [head.map];
}
