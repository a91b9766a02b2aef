import { activationOf } from "../arch/index.js";
import { functionOf } from "../arch/internal.js";
import { ActivationHistogram } from "../compress/index.js";
import type { Model, Tap } from "../model/index.js";

/** What was seen at one place of one layer. */
export interface SiteStatistics {
  values: number;
  /** Share of exact zeros. */
  zeros: number;
  /** |x| at the quantiles 0.05, 0.10 … 1. */
  absQuantiles: number[];
}

/** Histograms of the watched places of one layer, filled through a tap. A gate is counted after its function. */
export class LayerHistograms {
  readonly tap: Tap;
  readonly #histograms: ReadonlyMap<string, ActivationHistogram>;

  /** @param sites ids of sites of the layer's description */
  constructor(model: Model, layer: number, sites: readonly string[]) {
    this.#histograms = new Map(sites.map((site) => [site, new ActivationHistogram(`layer ${layer}, ${site}`)]));
    const gate = activationOf(model.config.spec.blocks[layer])?.step;
    this.tap = {
      sites,
      onActivation: async (_layer, site, activation) => {
        const values = await model.backend.read(activation);
        if (site === gate?.site?.id) activate(values, functionOf(gate));
        this.at(site).add(values);
      },
    };
  }

  at(site: string): ActivationHistogram {
    return this.#histograms.get(site)!;
  }

  statistics(): Record<string, SiteStatistics> {
    const entries = Array.from(this.#histograms, ([site, histogram]) => [
      site,
      {
        values: histogram.count,
        zeros: histogram.sparsityAt(0),
        absQuantiles: Array.from({ length: 20 }, (_, i) => histogram.absQuantile((i + 1) / 20)),
      },
    ]);
    return Object.fromEntries(entries);
  }
}

function activate(values: Float32Array, f: (x: number) => number): void {
  for (let i = 0; i < values.length; i++) values[i] = f(values[i]);
}
