import type { Model } from "../model/index.js";
import { measureExperts } from "../pipeline/index.js";
import type { Context } from "./command.js";
import { type Column, percent, table } from "./format.js";

/** Where the tokens of a text went in one layer. */
export interface ExpertLoads {
  layer: number;
  /** Share of the layer's slots, one for every token and each of its experts, that each expert got. */
  loads: number[];
  /** Mean weight of each expert where it works; 0 where it never does. */
  meanWeights: number[];
}

const columns: readonly Column<ExpertLoads>[] = [
  { title: "layer", cell: ({ layer }) => `${layer}` },
  { title: "most", cell: ({ loads }) => percent(Math.max(...loads), 1) },
  { title: "least", cell: ({ loads }) => percent(Math.min(...loads), 1) },
  { title: "of every expert", align: "left", cell: ({ loads }) => loads.map((load) => percent(load, 1)).join(" ") },
];

/** Measures and prints the load of every expert, over the windows that are evaluated. */
export async function expertLoads(
  context: Context,
  model: Model,
  tokens: Uint32Array,
  { window, maxWindows }: { window: number; maxWindows?: number },
): Promise<ExpertLoads[]> {
  const { signal, onProgress } = context;
  const measured = await measureExperts(model, tokens, { window, maxWindows, signal, onProgress });
  const layers = measured.flatMap((statistics, layer) => {
    if (statistics === undefined) return [];
    const { counts, weights } = statistics;
    const slots = counts.reduce((a, b) => a + b, 0);
    return {
      layer,
      loads: Array.from(counts, (n) => (slots === 0 ? 0 : n / slots)),
      meanWeights: Array.from(weights, (sum, e) => (counts[e] === 0 ? 0 : sum / counts[e])),
    };
  });
  context.print(`Load of the experts\n${table(columns, layers)}\n`);
  return layers;
}
