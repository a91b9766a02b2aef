import { type LinearSpec, linearsOf, type ModelSpec } from "../arch/index.js";
import { ProblemsError } from "../core/index.js";
import type { Adapter, LoraPair, Rescaling } from "../io/index.js";
import { rowsOfReference } from "../io/internal.js";

/** What an adapter does to one linear map of a model. */
export type Adaptation = { kind: "lora"; pair: LoraPair } | { kind: "ia3"; rescaling: Rescaling };

/**
 * The linear maps that an adapter is for. PEFT names modules, which may hold several maps (q, k and v in one tensor): each gets
 * its own rows.
 * @throws ProblemsError with all modules that the model does not have, or has in another shape
 */
export function adaptationsOf(spec: ModelSpec, adapter: Adapter): Map<LinearSpec, Adaptation> {
  const byModule = new Map<string, LinearSpec[]>();
  for (const map of spec.blocks.flatMap(linearsOf)) {
    const module = map.weight.tensor.replace(/\.weight$/, "");
    byModule.set(module, [...(byModule.get(module) ?? []), map]);
  }
  const found = new Map<LinearSpec, Adaptation>();
  const problems: string[] = [];
  for (const [module, adapted] of adapter.modules) {
    const maps = byModule.get(module) ?? byModule.get(nameWithin(module, byModule));
    if (maps === undefined) problems.push(`${module}: the model's blocks have no such matrix`);
    for (const map of maps ?? []) {
      const { rows, whole } = rowsOfReference(map.weight);
      const expected = `${whole.rows} × ${whole.cols}`;
      if ("a" in adapted) {
        if (adapted.rows !== whole.rows || adapted.cols !== whole.cols || map.weight.stacked !== undefined) {
          problems.push(`${module}: a pair for ${adapted.rows} × ${adapted.cols}; the model has ${expected}`);
        } else found.set(map, { kind: "lora", pair: ofRows(adapted, rows) });
      } else {
        const wanted = adapted.of === "outputs" ? whole.rows : whole.cols;
        if (adapted.factors.length !== wanted || map.weight.stacked !== undefined) {
          problems.push(`${module}: ${adapted.factors.length} factors of ${adapted.of}; the model has ${expected}`);
        } else found.set(map, { kind: "ia3", rescaling: factorsOfRows(adapted, rows) });
      }
    }
  }
  if (problems.length > 0) throw new ProblemsError("the adapter does not fit the model", problems);
  return found;
}

/** Some checkpoints leave out what others have in front of all names. */
function nameWithin(module: string, modules: ReadonlyMap<string, unknown>): string {
  return [...modules.keys()].find((name) => module.endsWith(`.${name}`) || name.endsWith(`.${module}`)) ?? module;
}

function ofRows(pair: LoraPair, rows: readonly number[]): LoraPair {
  if (rows.length === pair.rows) return pair;
  const { rank } = pair;
  const b = new Float32Array(rows.length * rank);
  for (const [r, row] of rows.entries()) b.set(pair.b.subarray(row * rank, (row + 1) * rank), r * rank);
  return { ...pair, b, rows: rows.length };
}

const factorsOfRows = (rescaling: Rescaling, rows: readonly number[]): Rescaling =>
  rescaling.of === "inputs"
    ? rescaling
    : { of: "outputs", factors: Float32Array.from(rows, (row) => rescaling.factors[row]) };
