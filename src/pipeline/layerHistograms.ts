import { ActivationHistogram } from "../compress/index.js";
import { activationFunctions } from "../core/index.js";
import { type Model, type Projection, type Tap, type TapSite, tapSites } from "../model/index.js";

/** What was seen at one place of one layer. */
export interface SiteStatistics {
  values: number;
  /** Share of exact zeros. */
  zeros: number;
  /** |x| at the quantiles 0.05, 0.10 … 1. */
  absQuantiles: number[];
}

/** The place inside a block whose activations a projection consumes. */
export const siteOf = Object.fromEntries(
  (Object.keys(tapSites) as TapSite[]).flatMap((site) => tapSites[site].map((projection) => [projection, site])),
) as Readonly<Record<Projection, TapSite>>;

/** Histograms of the watched places of one layer, filled through a tap. The gate is counted after its function. */
export class LayerHistograms {
  readonly tap: Tap;
  readonly #histograms: ReadonlyMap<string, ActivationHistogram>;

  constructor(model: Model, layer: number, sites: readonly TapSite[]) {
    this.#histograms = new Map(sites.map((site) => [site, new ActivationHistogram(`layer ${layer}, ${site}`)]));
    this.tap = {
      sites,
      onActivation: async (_layer, site, activation) => {
        const values = await model.backend.read(activation);
        if (site === "mlpGate") activate(values, activationFunctions[model.config.activation]);
        this.at(site).add(values);
      },
    };
  }

  at(site: string): ActivationHistogram {
    return this.#histograms.get(site)!;
  }

  statistics(): Partial<Record<TapSite, SiteStatistics>> {
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
