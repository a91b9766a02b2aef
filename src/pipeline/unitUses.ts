import { breathe, type JobOptions, Stage } from "../core/index.js";
import type { Model, OffloadShape } from "../model/index.js";
import { type OffloadStream, placeOffload } from "../model/internal.js";

/** Which part of a text uses are counted on. */
export interface UnitUsesOptions extends JobOptions {
  /** Tokens of a window, and windows from the start of the text. */
  window: number;
  windows: number;
}

/**
 * Counts on a text how often each unit of an offloaded model would be read: a neuron whose hidden value is not 0, an input beyond the
 * thresholds of the maps that read it.
 * @param model in memory, with its thresholds
 * @returns u32 [units] by the place of the stream among those of `placeOffload`
 */
export async function countUnitUses(
  model: Model,
  shape: OffloadShape,
  tokens: Uint32Array,
  { window, windows, signal, onProgress }: UnitUsesOptions,
): Promise<Uint32Array[]> {
  const { streams } = placeOffload(model.config.spec, shape);
  const counts = streams.map(({ units }) => new Uint32Array(units));
  const siteOf = ({ mlp, of }: OffloadStream) => (of === "first" ? mlp.first : mlp.down).site.id;
  const sites = [...new Set(streams.map(siteOf))];
  const count = Math.min(windows, Math.floor(tokens.length / window));
  const stage = new Stage("count uses", count, "windows", onProgress);
  using cache = model.createCache(window);
  for (let w = 0; w < count; w++) {
    await breathe(signal);
    await model.forward(tokens.subarray(w * window, (w + 1) * window), cache, 0, {
      logits: "none",
      thresholds: "dense",
      tap: {
        sites,
        async onActivation(layer, site, activation) {
          const s = streams.findIndex((stream) => stream.mlp.layer === layer && siteOf(stream) === site);
          if (s < 0) return;
          const threshold = leastThreshold(model, streams[s]);
          const values = await model.backend.read(activation);
          const { units } = streams[s];
          for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]) <= threshold)) counts[s][i % units]++;
        },
      },
    });
    stage.advance(1);
  }
  return counts;
}

/** The threshold of the map that keeps most. */
function leastThreshold({ thresholds }: Model, { mlp, of }: OffloadStream): number {
  const { maps } = of === "first" ? mlp.first : mlp.down;
  const given = thresholds?.maps[mlp.layer];
  // Without thresholds a product reads every input; what is 0 is told apart all the same.
  return Math.fround(Math.min(...maps.map(({ map }) => given?.[map.role] ?? 0)));
}
