import { FormatError } from "../../core/index.js";

/** Tensors that only quantised weights have, by what their names end in. */
const marks: readonly [suffix: string, method: string][] = [
  [".qweight", "GPTQ or AWQ"],
  [".weight_packed", "compressed-tensors (packed)"],
  [".weight_scale_inv", "blocks of FP8"],
  [".SCB", "bitsandbytes (8 bits)"],
  [".weight.quant_map", "bitsandbytes (4 bits)"],
];

/** Weights of which nothing tells how they are quantised. @throws FormatError that names the method and a tensor */
export function refuseQuantizedNames(names: Iterable<string>, location: string): void {
  for (const name of names) {
    const found = marks.find(([suffix]) => name.endsWith(suffix));
    if (found === undefined) continue;
    throw new FormatError({
      file: location,
      field: name,
      problem: `the weights are quantised by ${found[1]}, and config.json has no quantization_config that says how`,
      expected: "the quantization_config of the tool that quantised them",
      hint: "Take config.json along from where the weights are, or take the original model",
    });
  }
}
