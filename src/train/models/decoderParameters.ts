import type { Random } from "../../core/index.js";
import type { FloatArray, ParameterInfo } from "../values.js";

const projection = /^model\.layers\.(\d+)\..*(_proj|experts\.\d+\.w[123])\.weight$/;

/** The trainable tensors of a decoder: its linear maps may be made sparse, all of them inner. */
export function decoderParameters(tensors: Iterable<{ name: string; shape: readonly number[] }>): ParameterInfo[] {
  return Array.from(tensors, ({ name, shape }) => {
    const layer = projection.exec(name)?.[1];
    return { name, shape, layer: layer ?? "", role: layer === undefined ? "dense" : "inner" };
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
