import { type ModelSpec, unitsOf } from "../../arch/index.js";
import type { GradientStatistic } from "../../compress/index.js";
import type { JobOptions } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { BackwardOptions, BlockGradients, BlockUnitGradients, TextWindows } from "../../pipeline/index.js";
import type { FloatArray } from "../values.js";
import { backpropagate } from "./backpropagation.js";

/** See `GradientSource`. */
export async function* blockGradients(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  windows: TextWindows,
  wanted: readonly GradientStatistic[],
  options?: BackwardOptions,
): AsyncGenerator<BlockGradients> {
  const count = windows.tokens.length / windows.window;
  let sums = new Map(wanted.map((statistic) => [statistic, new Map<string, Float64Array>()]));
  const visit = (_layer: number, gradients: ReadonlyMap<string, FloatArray>) => {
    for (const [id, gradient] of gradients) {
      for (const [statistic, byId] of sums) addTo(byId, id, gradient, powers[statistic]);
    }
  };
  const meansOf = (byId: ReadonlyMap<string, Float64Array>) =>
    new Map(Array.from(byId, ([id, total]) => [id, Float32Array.from(total, (sum) => sum / count)]));
  for await (const layer of backpropagate(checkpoint, spec, windows, { together: 1, visit }, options)) {
    yield { layer, values: Object.fromEntries(Array.from(sums, ([statistic, byId]) => [statistic, meansOf(byId)])) };
    sums = new Map(wanted.map((statistic) => [statistic, new Map()]));
  }
}

/** What of a gradient is added up. */
const powers: Readonly<Record<GradientStatistic, 1 | 2>> = { gradients: 1, squaredGradients: 2 };

function addTo(sums: Map<string, Float64Array>, id: string, gradient: FloatArray, power: 1 | 2): void {
  const found = sums.get(id) ?? new Float64Array(gradient.length);
  sums.set(id, found);
  for (let i = 0; i < found.length; i++) found[i] += power === 1 ? gradient[i] : gradient[i] * gradient[i];
}

/** See `GradientSource`. */
export async function* unitGradients(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  windows: TextWindows,
  together: number,
  options?: JobOptions,
): AsyncGenerator<BlockUnitGradients> {
  const batches = Math.ceil(windows.tokens.length / windows.window / together);
  let values: Record<string, Float64Array> = {};
  let batch = 0;
  const visit = (
    layer: number,
    gradients: ReadonlyMap<string, FloatArray>,
    weights: ReadonlyMap<string, FloatArray>,
  ) => {
    for (const { kind, count, maps } of unitsOf(spec.blocks[layer])) {
      values[kind] ??= new Float64Array(batches * count);
      for (const { map, axis } of maps) {
        if (axis !== "cols") continue;
        // A factor of what enters some columns is one of their weights.
        const width = map.cols / count;
        const [of, weight] = [gradients.get(map.id)!, weights.get(map.id)!];
        for (let i = 0; i < of.length; i++)
          values[kind][batch * count + Math.floor((i % map.cols) / width)] += of[i] * weight[i];
      }
    }
    batch++;
  };
  for await (const layer of backpropagate(checkpoint, spec, windows, { together, visit }, options)) {
    const unitsIn = (kind: string) => ({ values: values[kind], batches, units: values[kind].length / batches });
    yield { layer, heads: unitsIn("heads"), neurons: unitsIn("neurons") };
    [values, batch] = [{}, 0];
  }
}
