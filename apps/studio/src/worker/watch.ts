import { readersOf } from "rarefy/arch";
import type { ForwardOptions, Model, PassThresholds } from "rarefy/model";
import type { Picture } from "../protocol.js";

/** Cells of one strip. */
const bins = 64;

/** One decoded token in so many is watched: its inputs are read back, which takes time. */
const every = 4;

/**
 * The same model, which shows what its thresholds skip at every fourth decoded token.
 * @param listener asked at each; undefined where nobody looks. It is called before the token is done, whose time says nothing about
 * the model
 */
export function watched(model: Model, listener: () => ((picture: Picture) => void) | undefined): Model {
  let token = 0;
  const forward: Model["forward"] = async (tokens, cache, start, options) => {
    const onPicture = listener();
    if (onPicture === undefined || tokens.length > 1 || token++ % every !== 0)
      return model.forward(tokens, cache, start, options);
    const picture = emptyPicture(model);
    const thresholds = options?.thresholds ?? model.thresholds;
    const tap = tapInputs(model, thresholds, (layer, role, inputs, threshold) =>
      strip(picture, layer, role).set(keptShares(inputs, threshold)),
    );
    const logits = await model.forward(tokens, cache, start, { ...options, tap });
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

/** The roles of the maps that read at each site, where there are some, in each layer. */
const readers = ({ config }: Model) =>
  config.spec.blocks.map((block) => new Map([...readersOf(block)].filter(([, roles]) => roles.length > 0)));

/** The roles of all maps of the blocks. */
export const rolesOf = (model: Model): string[] => [
  ...new Set(readers(model).flatMap((sites) => [...sites.values()].flat())),
];

function emptyPicture(model: Model): Picture {
  const { layers } = model.config;
  const maps = rolesOf(model);
  return { type: "picture", maps, layers, bins, kept: new Uint8Array(layers * maps.length * bins) };
}

/** Reads back what enters the linear maps. @param onInputs told of every map's inputs, with its threshold in f32 */
export function tapInputs(
  model: Model,
  thresholds: PassThresholds | undefined,
  onInputs: (layer: number, role: string, inputs: Float32Array, threshold: number) => void,
): NonNullable<ForwardOptions["tap"]> {
  const ofLayers = readers(model);
  return {
    sites: [...new Set(ofLayers.flatMap((sites) => [...sites.keys()]))],
    async onActivation(layer, site, activation) {
      const inputs = await model.backend.read(activation);
      for (const role of ofLayers[layer].get(site)!) {
        const threshold = (typeof thresholds === "object" && thresholds.maps[layer][role]) || 0;
        onInputs(layer, role, inputs, Math.fround(threshold));
      }
    },
  };
}

/** The cells of one layer and map, by its role. */
export function strip({ kept, maps, bins: length }: Picture, layer: number, role: string): Uint8Array {
  const start = (layer * maps.length + maps.indexOf(role)) * length;
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
