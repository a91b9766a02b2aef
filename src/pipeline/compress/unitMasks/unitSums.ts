import type { ByUnit, UnitType } from "../../../compress/internal.js";
import { breathe } from "../../../core/index.js";
import { loadBlock } from "../block.js";
import type { Look } from "../look.js";
import { coupledMatrices } from "../stages/cutUnits.js";

/**
 * f64 [units] of every block that is kept: the sum of the squared weights of each unit.
 * @param behind of the matrices behind the units alone, which is 0 for a unit that gives nothing
 */
export async function unitSums(
  { checkpoint, plan, options }: Look,
  kept: readonly number[],
  behind: boolean,
): Promise<ByUnit<Float64Array[]>> {
  const sums: ByUnit<Float64Array[]> = { heads: [], neurons: [] };
  for (const layer of kept) {
    await breathe(options.signal);
    const block = await loadBlock(checkpoint, plan.description.config, layer);
    for (const kind of Object.keys(sums) as UnitType[]) {
      const [coupled] = coupledMatrices(block, kind);
      if (coupled === undefined) {
        sums[kind].push(new Float64Array());
        continue;
      }
      const { count, members } = coupled.group;
      const own = new Float64Array(count);
      for (const [m, { axis }] of members.entries()) {
        if (behind && axis === "rows") continue;
        const { weight, rows, cols } = coupled.matrices[m];
        const size = (axis === "rows" ? rows : cols) / count;
        for (let i = 0; i < weight.length; i++) {
          const line = axis === "rows" ? Math.floor(i / cols) : i % cols;
          own[Math.floor(line / size)] += weight[i] * weight[i];
        }
      }
      sums[kind].push(own);
    }
  }
  return sums;
}
