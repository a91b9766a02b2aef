import type { MixtureStep, Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { Activation, ExpertMatrices, RoutedSlots } from "../../kernels/index.js";
import { type ExpertRun, runExperts } from "../runExperts.js";
import type { ExpertWork } from "./messages.js";
import type { ExpertRanks } from "./ranks.js";
import { thresholdsByStep } from "./thresholds.js";

/** Slots one after the other whose experts lie at one rank. */
interface Run extends RoutedSlots {
  rank: number;
  firstSlot: number;
}

/**
 * As `runExperts`, where this rank holds a share of the experts only: rows go to the ranks of theirs, and while those work this
 * one does, too.
 * @param experts those of rank 0
 */
export async function runAtRanks(
  step: MixtureStep,
  layer: number,
  experts: ReadonlyMap<Step, ExpertMatrices>,
  ranks: ExpertRanks,
  run: ExpertRun,
): Promise<Activation> {
  const { backend, buffers, from, routing, thresholds } = run;
  if (run.watch !== undefined) {
    throw new UsageError("experts at several ranks cannot be watched; measure and calibrate with one rank");
  }
  if (thresholds?.inputs !== undefined) {
    throw new UsageError("experts at several ranks take thresholds, and no inputs by their size (topk, blocks, mass)");
  }
  const runs = runsOf(await backend.readRouting(routing), ranks, step.experts.length);
  const x = runs.some(({ rank }) => rank > 0) ? await backend.read(from) : new Float32Array(0);
  const sent = thresholds && thresholdsByStep(step, thresholds);
  const remote = runs
    .filter(({ rank }) => rank > 0)
    .map(({ rank, ...some }) => ranks.run(rank, { layer, ...rowsFor(some, x, from.cols), thresholds: sent }));
  // Rejections are met below, after this rank's own work.
  for (const result of remote) result.catch(() => {});
  for (const { rank, firstSlot, ...slots } of runs) {
    if (rank > 0) continue;
    await runExperts(step, experts, { ...run, routing: backend.routeTo(slots, routing.rows), firstSlot });
  }
  const whole = buffers.of(step.experts[0].out);
  const out = whole.rows === routing.slotCount ? whole : whole.rowRange(0, routing.slotCount);
  const results = await Promise.all(remote);
  for (const [r, { firstSlot, rows }] of runs.filter(({ rank }) => rank > 0).entries()) {
    backend.write(out.rowRange(firstSlot, rows.length), results[r]);
  }
  return out;
}

function runsOf({ rows, experts, weights: shares }: RoutedSlots, ranks: ExpertRanks, count: number): Run[] {
  const places = Array.from(experts, (expert) => ranks.placeOf(expert, count));
  const runs: Run[] = [];
  for (let start = 0; start < places.length; ) {
    let end = start + 1;
    while (end < places.length && places[end].rank === places[start].rank) end++;
    runs.push({
      rank: places[start].rank,
      firstSlot: start,
      rows: rows.slice(start, end),
      experts: Uint32Array.from(places.slice(start, end), ({ expert }) => expert),
      weights: shares.slice(start, end),
    });
    start = end;
  }
  return runs;
}

/** The rows of some slots, each once and in their order. */
function rowsFor(
  { rows, experts }: RoutedSlots,
  x: Float32Array,
  width: number,
): Pick<ExpertWork, "x" | "rows" | "slotRows" | "slotExperts"> {
  const distinct = [...new Set(rows)].sort((a, b) => a - b);
  const places = new Map(distinct.map((row, place) => [row, place]));
  const sent = new Float32Array(distinct.length * width);
  for (const [place, row] of distinct.entries()) sent.set(x.subarray(row * width, (row + 1) * width), place * width);
  return { x: sent, rows: distinct.length, slotRows: rows.map((row) => places.get(row)!), slotExperts: experts };
}
