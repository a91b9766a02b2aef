import type { MixtureStep, Site, Step } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Activation, Backend, ExpertMatrices, Routing } from "../kernels/index.js";
import type { Buffers } from "./buffers.js";
import { countedInputs } from "./countedInputs.js";
import type { BlockThresholds } from "./thresholds.js";

/** What the experts of a mixture are run on. */
export interface ExpertRun {
  readonly backend: Backend;
  /** With room for as many slots as there could be. */
  readonly buffers: Buffers;
  /** What enters the experts: a row for every routed row. */
  readonly from: Activation;
  readonly routing: Routing;
  /** Where its slots lie in the buffers of slots; default 0. */
  readonly firstSlot?: number;
  readonly thresholds: BlockThresholds | undefined;
  /** See `Pass.scratch`; an input choice needs it. */
  scratch?(rows: number, cols: number): Activation;
  /** Sees what a site shows. */
  watch?(site: Site | undefined, activation: Activation, of: "rows" | "slots"): Promise<void>;
}

/** Runs the steps of all experts with rows. @param experts the matrices of each linear step @returns f32 [slots, hiddenSize] */
export async function runExperts(
  { of: entering, experts: [expert], site }: MixtureStep,
  experts: ReadonlyMap<Step, ExpertMatrices>,
  { backend, buffers, from, routing, firstSlot = 0, thresholds, scratch, watch }: ExpertRun,
): Promise<Activation> {
  const slotsOf = (whole: Activation): Activation =>
    whole.rows === routing.slotCount ? whole : whole.rowRange(firstSlot, routing.slotCount);
  const named = (name: string): Activation => (name === entering ? from : slotsOf(buffers.of(name)));
  // What enters the experts has a row for every row of the pass, all behind it has one for every slot.
  const rowsOf = (name: string): "rows" | "slots" => (name === entering ? "rows" : "slots");
  for (const inner of expert.steps) {
    if (inner.do === "linear") {
      await watch?.(inner.site, named(inner.of), rowsOf(inner.of));
      const names = inner.maps.map(({ into }) => into);
      const out = names.length === 1 ? buffers.of(names[0]) : buffers.together(names)!;
      const x = named(inner.of);
      const counted = scratch ? countedInputs({ backend, thresholds, sparseFromRow: 0, scratch }, inner, x) : x;
      backend.expertLinear(slotsOf(out), counted, experts.get(inner)!, routing, {
        from: rowsOf(inner.of),
        thresholds: thresholds?.linear.get(inner),
      });
    } else if (inner.do === "activate" && inner.times !== undefined) {
      await watch?.(inner.site, named(inner.of), rowsOf(inner.of));
      const [out, gate, up] = [inner.into, inner.of, inner.times].map(named);
      backend.gatedActivation(out, gate, up, inner.f, {
        gateThreshold: thresholds?.gates.get(inner),
        clamped: inner.clamped,
      });
    } else if (inner.do === "activate") {
      backend.map(named(inner.into), named(inner.of), inner.f);
    } else throw new UsageError(`an expert with the step "${inner.do}" cannot be run yet`);
  }
  const out = named(expert.out);
  await watch?.(site, out, "slots");
  return out;
}
