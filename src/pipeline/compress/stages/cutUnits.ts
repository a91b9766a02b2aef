import { unitsOf } from "../../../arch/index.js";
import type { CoupledGroup } from "../../../compress/index.js";
import { keepUnits, keepUnitsOfVector, type UnitType, unitMask } from "../../../compress/internal.js";
import type { BlockMatrix, BlockSizes, DecoderBlock } from "../block.js";
import { linearOf } from "./stage.js";

/** Matrices of a block that lose units together, in the order of the block. */
export interface CoupledMatrices {
  group: CoupledGroup;
  matrices: BlockMatrix[];
}

/** One group, or for the neurons of a mixture one for every expert. */
export function coupledMatrices(block: DecoderBlock, type: UnitType): CoupledMatrices[] {
  const count = type === "heads" ? block.sizes.kvHeads : block.sizes.intermediateSize;
  return unitsOf(block.spec)
    .filter(({ kind }) => kind === type)
    .map(({ maps }) => {
      const matrices = maps.map(({ map }) => block.matrices.get(map.id)!);
      const members = maps.map(({ axis }, m) => ({
        layer: linearOf(matrices[m]),
        axis: axis === "rows" ? ("rows" as const) : ("columns" as const),
      }));
      return { group: { count, members }, matrices };
    });
}

/** Makes the matrices of a group, as they are now, and their biases smaller. @param kept units, ascending */
export function shrinkGroup(block: DecoderBlock, { group, matrices }: CoupledMatrices, kept: readonly number[]): void {
  for (const [m, { axis }] of group.members.entries()) {
    const matrix = matrices[m];
    Object.assign(matrix, keepUnits({ axis, layer: linearOf(matrix) }, group.count, kept));
    const bias = axis === "rows" ? biasOf(block, matrix) : undefined;
    if (bias !== undefined) bias.values = keepUnitsOfVector(bias.values, group.count, kept);
  }
}

/** Leaves zeros in place of the units of a group that go, which later stages must leave. @param kept units */
export function zeroGroup(block: DecoderBlock, { group, matrices }: CoupledMatrices, kept: readonly number[]): void {
  const { count, members } = group;
  const stays = new Set(kept);
  for (const [m, member] of members.entries()) {
    const matrix = matrices[m];
    const mask = unitMask(member, count, kept);
    matrix.weight = matrix.weight.map((w, i) => (mask[i] === 1 ? w : 0));
    matrix.mask = matrix.mask?.map((keep, i) => keep & mask[i]) ?? mask;
    const bias = member.axis === "rows" ? biasOf(block, matrix) : undefined;
    if (bias === undefined) continue;
    const size = bias.values.length / count;
    bias.values = bias.values.map((value, i) => (stays.has(Math.floor(i / size)) ? value : 0));
  }
}

const biasOf = ({ vectors }: DecoderBlock, { place }: BlockMatrix) => place.map.bias && vectors.get(place.map.bias)!;

/** The sizes of a block that keeps so many neurons, or key and value heads with the query heads that read them. */
export const sizesWith = (sizes: BlockSizes, type: UnitType, kept: number): BlockSizes =>
  type === "neurons"
    ? { ...sizes, intermediateSize: kept }
    : { ...sizes, queryHeads: sizes.queryHeads * (kept / sizes.kvHeads), kvHeads: kept };
