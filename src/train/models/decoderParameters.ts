import type { Random } from "../../core/index.js";
import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

const projection = /^model\.layers\.(\d+)\.(.*?)([a-z]+_proj|w[123])\.weight$/;

/** Units along the rows or columns of each linear map, by the last part of its name. */
const sharedBy: Readonly<Record<string, Pick<SharedUnits, "type" | "axis">>> = {
  gate_proj: { type: "neurons", axis: "rows" },
  up_proj: { type: "neurons", axis: "rows" },
  down_proj: { type: "neurons", axis: "columns" },
  w1: { type: "neurons", axis: "rows" },
  w3: { type: "neurons", axis: "rows" },
  w2: { type: "neurons", axis: "columns" },
  q_proj: { type: "heads", axis: "rows" },
  k_proj: { type: "heads", axis: "rows" },
  v_proj: { type: "heads", axis: "rows" },
  o_proj: { type: "heads", axis: "columns" },
};

/**
 * The trainable tensors of a decoder: its linear maps may be made sparse, all of them inner.
 * @param blocks of the config; without them it is not known where one attention head ends
 */
export function decoderParameters(
  tensors: Iterable<{ name: string; shape: readonly number[] }>,
  blocks: readonly { kvHeads: number }[] = [],
): ParameterInfo[] {
  return Array.from(tensors, ({ name, shape }) => {
    const match = projection.exec(name);
    if (match === null) return { name, shape, layer: "", role: "dense" };
    const [, layer, module, map] = match;
    const units = sharedBy[map];
    // A key and value head goes with all the query heads that read it.
    const count = units.type === "heads" ? blocks[Number(layer)]?.kvHeads : shape[units.axis === "rows" ? 0 : 1];
    const shared = count === undefined ? [] : [{ ...units, group: `${layer}.${module}`, count }];
    return { name, shape, layer, role: "inner", shared };
  });
}

/** Norms 1, biases 0, everything else normal with the given deviation. */
export function initialDecoder(
  parameters: readonly ParameterInfo[],
  random: Random,
  deviation = 0.02,
): Map<string, FloatArray> {
  return new Map(
    parameters.map(({ name, shape }) => {
      const length = shape.reduce((a, b) => a * b, 1);
      if (shape.length === 2) return [name, Float32Array.from({ length }, () => deviation * random.normal())];
      return [name, new Float32Array(length).fill(name.endsWith(".bias") ? 0 : 1)];
    }),
  );
}
