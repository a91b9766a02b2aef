import type { UnitType } from "../../../compress/internal.js";
import { scaleUnits } from "../unitMasks/tuneMasks.js";
import { coupledMatrices, shrinkGroup, sizesWith, zeroGroup } from "./cutUnits.js";
import type { StageContext, StageHandler } from "./stage.js";

/** Factors of heads and neurons go into the matrices behind them; units of factor 0 go. */
export const maskUnits: StageHandler<"maskUnits"> = {
  approximates: false,
  needs: async () => [],
  async apply(context) {
    for (const kind of ["heads", "neurons"] as const) {
      await context.breathe();
      const factors = context.budget?.factors?.[kind] ?? [];
      if (factors.length > 0) maskKind(context, kind, factors);
    }
  },
};

function maskKind({ stage, block }: StageContext<"maskUnits">, kind: UnitType, factors: readonly number[]): void {
  const multipleOf = kind === "heads" ? 1 : Math.min(stage.multipleOf, factors.length);
  const kept = stage.shrink ? filledUp(factors, multipleOf) : nonZeros(factors);
  for (const coupled of coupledMatrices(block, kind)) {
    for (const [m, { axis }] of coupled.group.members.entries()) {
      const matrix = coupled.matrices[m];
      if (axis === "columns") matrix.weight = scaleUnits(matrix, factors);
    }
    if (stage.shrink) shrinkGroup(block, coupled, kept);
    else zeroGroup(block, coupled, kept);
  }
  if (stage.shrink) Object.assign(block.sizes, sizesWith(block.sizes, kind, kept.length));
}

const nonZeros = (factors: readonly number[]): number[] =>
  Array.from(factors.keys()).filter((unit) => factors[unit] !== 0);

/** The units that stay, and as many of those that give 0 as a layer must have. Ascending. */
function filledUp(factors: readonly number[], multipleOf: number): number[] {
  const kept = nonZeros(factors);
  const wanted = Math.min(factors.length, Math.max(1, Math.ceil(kept.length / multipleOf)) * multipleOf);
  const gone = Array.from(factors.keys()).filter((unit) => factors[unit] === 0);
  return [...kept, ...gone.slice(0, wanted - kept.length)].sort((a, b) => a - b);
}
