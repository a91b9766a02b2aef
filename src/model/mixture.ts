import type { MixtureStep } from "../arch/index.js";
import type { Routing } from "../kernels/index.js";
import { type Buffers, routerLogits } from "./buffers.js";
import { bufferOf, type Operation, type Pass } from "./pass.js";
import { type ExpertRun, runExperts } from "./runExperts.js";
import type { BlockThresholds } from "./thresholds.js";
import type { LoadedMixture } from "./weights.js";

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
  { router, options, experts, ranks, offload }: LoadedMixture,
  first: number,
  count: number,
  thresholds: BlockThresholds | undefined,
): Promise<void> {
  if (count === 0) return;
  const { backend, layer, tap } = pass;
  const buffers: Buffers = pass.buffersFor(count);
  const from = bufferOf(pass, step.of).rowRange(first, count);
  const logits = buffers.of(routerLogits);
  backend.linear(logits, from, router.matrix, ...(router.bias ? [{ bias: router.bias }] : []));
  const routing: Routing = await backend.route(logits, options);
  if (routing.slotCount === 0) return;
  const run: ExpertRun = {
    backend,
    buffers,
    from,
    routing,
    thresholds,
    scratch: pass.scratch,
    ...(tap && {
      async watch(site, activation, of) {
        if (site === undefined || !tap.sites.includes(site.id)) return;
        const slots = { ...(await backend.readRouting(routing)), firstRow: first, of };
        await tap.onActivation(layer, site.id, activation, slots);
      },
    }),
  };
  const runAll = async () => {
    if (offload !== undefined) return offload().run(step, run);
    if (ranks === undefined) return runExperts(step, experts, run);
    const { runAtRanks } = await import("./expertRanks/runAtRanks.js");
    return runAtRanks(step, layer, experts, ranks, run);
  };
  const out = await runAll();
  backend.addExperts(bufferOf(pass, step.into).rowRange(first, count), out, routing);
}
