import { type LinearSpec, linearsOf, type ModelSpec } from "../arch/index.js";
import { ProblemsError } from "../core/index.js";
import type { Adapter, LoraPair, PairMixture, Rescaling, RescalingMixture } from "../io/index.js";
import { rowsOfReference } from "../io/internal.js";

/** What an adapter does to one linear map of a model. */
export type Adaptation =
  | { kind: "lora"; pair: LoraPair }
  | { kind: "ia3"; rescaling: Rescaling }
  | { kind: "molora"; pairs: PairMixture }
  | { kind: "mov"; rescalings: RescalingMixture };

type Adapted = LoraPair | Rescaling | PairMixture | RescalingMixture;

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
      const problem = map.weight.stacked === undefined ? problemOf(adapted, whole) : mismatch(adapted, whole);
      if (problem === undefined) found.set(map, ofRows(adapted, rows));
      else problems.push(`${module}: ${problem}`);
    }
  }
  if (problems.length > 0) throw new ProblemsError("the adapter does not fit the model", problems);
  return found;
}

/** Some checkpoints leave out what others have in front of all names. */
function nameWithin(module: string, modules: ReadonlyMap<string, unknown>): string {
  return [...modules.keys()].find((name) => module.endsWith(`.${name}`) || name.endsWith(`.${module}`)) ?? module;
}

/** Rows and columns of a module. */
interface Shape {
  rows: number;
  cols: number;
}

const lengthOf = (adapted: Rescaling | RescalingMixture) =>
  adapted.factors.length / ("experts" in adapted ? adapted.experts : 1);

function problemOf(adapted: Adapted, module: Shape): string | undefined {
  const fits =
    "a" in adapted
      ? adapted.rows === module.rows && adapted.cols === module.cols
      : lengthOf(adapted) === (adapted.of === "outputs" ? module.rows : module.cols);
  return fits ? undefined : mismatch(adapted, module);
}

function mismatch(adapted: Adapted, { rows, cols }: Shape): string {
  const what =
    "a" in adapted ? `a pair for ${adapted.rows} × ${adapted.cols}` : `${lengthOf(adapted)} factors of ${adapted.of}`;
  return `${what}; the model has ${rows} × ${cols}`;
}

/** What is for a module, of some of its rows. */
function ofRows(adapted: Adapted, rows: readonly number[]): Adaptation {
  if ("a" in adapted) {
    if (!("experts" in adapted)) return { kind: "lora", pair: { ...adapted, ...rowsOfPairs(adapted, 1, rows) } };
    return { kind: "molora", pairs: { ...adapted, ...rowsOfPairs(adapted, adapted.experts, rows) } };
  }
  if (!("experts" in adapted)) return { kind: "ia3", rescaling: { ...adapted, ...rowsOfFactors(adapted, 1, rows) } };
  return { kind: "mov", rescalings: { ...adapted, ...rowsOfFactors(adapted, adapted.experts, rows) } };
}

/** b [experts, all rows, rank] as [experts, rows, rank] */
function rowsOfPairs({ b, rank, rows: all }: LoraPair | PairMixture, experts: number, rows: readonly number[]) {
  if (rows.length === all) return { b, rows: all };
  const some = new Float32Array(experts * rows.length * rank);
  for (let e = 0; e < experts; e++) {
    for (const [r, row] of rows.entries()) {
      const at = (e * all + row) * rank;
      some.set(b.subarray(at, at + rank), (e * rows.length + r) * rank);
    }
  }
  return { b: some, rows: rows.length };
}

/** Factors [experts, all rows] as [experts, rows]; those of inputs are for all of them. */
function rowsOfFactors(adapted: Rescaling | RescalingMixture, experts: number, rows: readonly number[]) {
  if (adapted.of === "inputs") return {};
  const all = lengthOf(adapted);
  const picked = Array.from({ length: experts }, (_, e) => rows.map((row) => adapted.factors[e * all + row]));
  return { factors: Float32Array.from(picked.flat()) };
}
