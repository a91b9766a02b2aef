import { type ForwardOptions, type Model, type Projection, projections, type TapSite, tapSites } from "rarefy/model";
import type { Picture } from "./protocol.js";

/** Cells of one strip. */
const bins = 64;

/** One decoded token in so many is watched: its inputs are read back, which takes time. */
const every = 4;

const sites = (Object.keys(tapSites) as TapSite[]).filter((site) => tapSites[site].length > 0);

/**
 * The same model, which shows what its thresholds skip at every fourth decoded token.
 * @param onPicture called before the token is done; that token's time says nothing about the model
 */
export function watched(model: Model, onPicture: (picture: Picture) => void): Model {
  let token = 0;
  const forward: Model["forward"] = async (tokens, cache, start, options) => {
    if (tokens.length > 1 || token++ % every !== 0) return model.forward(tokens, cache, start, options);
    const picture = emptyPicture(model.config.layers);
    const logits = await model.forward(tokens, cache, start, { ...options, tap: tapInto(picture, model) });
    onPicture(picture);
    return logits;
  };
  // Everything else is the model's own, with its own `this`.
  return new Proxy(model, {
    get(_, name) {
      if (name === "forward") return forward;
      const value: unknown = Reflect.get(model, name);
      return typeof value === "function" ? value.bind(model) : value;
    },
  });
}

const emptyPicture = (layers: number): Picture => ({
  type: "picture",
  projections,
  layers,
  bins,
  kept: new Uint8Array(layers * projections.length * bins),
});

function tapInto(picture: Picture, { backend, thresholds }: Model): ForwardOptions["tap"] {
  return {
    sites,
    async onActivation(layer, site, activation) {
      const inputs = await backend.read(activation);
      // It is called at the sites that it names, and at no others.
      for (const projection of tapSites[site as keyof typeof tapSites]) {
        const threshold = thresholds?.projections[layer][projection] ?? 0;
        strip(picture, layer, projection).set(keptShares(inputs, Math.fround(threshold)));
      }
    },
  };
}

/** The cells of one layer and projection. */
export function strip({ kept, bins: length }: Picture, layer: number, projection: Projection): Uint8Array {
  const start = (layer * projections.length + projections.indexOf(projection)) * length;
  return kept.subarray(start, start + length);
}

/** Share of every bin's inputs above the threshold, 0 … 255. */
function keptShares(inputs: Float32Array, threshold: number): number[] {
  return Array.from({ length: bins }, (_, bin) => {
    const part = inputs.subarray(
      Math.floor((bin * inputs.length) / bins),
      Math.floor(((bin + 1) * inputs.length) / bins),
    );
    const kept = part.reduce((count, x) => count + (Math.abs(x) > threshold ? 1 : 0), 0);
    return Math.round((255 * kept) / Math.max(1, part.length));
  });
}
