import type { MixtureStep, Site } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Activation, Routing } from "../kernels/index.js";
import { type Buffers, routerLogits } from "./buffers.js";
import type { LoadedMixture } from "./load.js";
import { bufferOf, type Operation, type Pass } from "./pass.js";
import type { BlockThresholds } from "./thresholds.js";

/** x += Σ weight · expert(normed) over the experts that each row is sent to. Only their weights are read. */
export function mixture(step: MixtureStep, weights: LoadedMixture): Operation {
  return async (pass) => {
    // Rows before `sparseFromRow` and those from it on, each by themselves: a routing mixes up its rows.
    const { rows } = pass.x;
    const dense = pass.thresholds === undefined ? rows : Math.min(pass.sparseFromRow, rows);
    await route(pass, step, weights, 0, dense, undefined);
    await route(pass, step, weights, dense, rows - dense, pass.thresholds);
  };
}

async function route(
  pass: Pass,
  step: MixtureStep,
  { router, options, experts }: LoadedMixture,
  first: number,
  count: number,
  thresholds: BlockThresholds | undefined,
): Promise<void> {
  if (count === 0) return;
  const { backend } = pass;
  const buffers: Buffers = pass.buffersFor(count);
  const from = bufferOf(pass, step.of).rowRange(first, count);
  // Buffers have room for as many slots as there could be.
  const slotsOf = (whole: Activation): Activation =>
    whole.rows === routing.slotCount ? whole : whole.rowRange(0, routing.slotCount);
  const named = (name: string): Activation => (name === step.of ? from : slotsOf(buffers.of(name)));

  // What enters the experts has a row for every row of the pass, all behind it has one for every slot.
  const rowsOf = (name: string): "rows" | "slots" => (name === step.of ? "rows" : "slots");

  const logits = buffers.of(routerLogits);
  backend.linear(logits, from, router.matrix, ...(router.bias ? [{ bias: router.bias }] : []));
  const routing: Routing = await backend.route(logits, options);
  const target = bufferOf(pass, step.into).rowRange(first, count);
  if (routing.slotCount === 0) return;
  const watch = async (site: Site | undefined, of: string): Promise<void> => {
    if (site === undefined || !pass.tap?.sites.includes(site.id)) return;
    const activation = named(of);
    const slots = { ...(await backend.readRouting(routing)), firstRow: first, of: rowsOf(of) };
    await pass.tap.onActivation(pass.layer, site.id, activation, slots);
  };
  const [expert] = step.experts;
  for (const inner of expert.steps) {
    if (inner.do === "linear") {
      const x = named(inner.of);
      await watch(inner.site, inner.of);
      const names = inner.maps.map(({ into }) => into);
      const out = names.length === 1 ? buffers.of(names[0]) : buffers.together(names)!;
      backend.expertLinear(slotsOf(out), x, experts.get(inner)!, routing, {
        from: rowsOf(inner.of),
        thresholds: thresholds?.linear.get(inner),
      });
    } else if (inner.do === "activate" && inner.times !== undefined) {
      await watch(inner.site, inner.of);
      const [out, gate, up] = [inner.into, inner.of, inner.times].map(named);
      backend.gatedActivation(out, gate, up, inner.f, {
        gateThreshold: thresholds?.gates.get(inner),
        clamped: inner.clamped,
      });
    } else if (inner.do === "activate") {
      backend.map(named(inner.into), named(inner.of), inner.f);
    } else throw new UsageError(`an expert with the step "${inner.do}" cannot be run yet`);
  }
  await watch(step.site, expert.out);
  backend.addExperts(target, named(expert.out), routing);
}
