import { FormatError, quote } from "../core/index.js";

const hint = "Take the original model; rarefy quantises it while loading";
const expected = "a checkpoint in f32, f16 or bf16";

/** @param record `quantization_config` of config.json. @throws FormatError that names the method */
export function refuseQuantized(record: unknown, file: string): never {
  const { quant_method: method, format } = (record ?? {}) as Record<string, unknown>;
  const by = [method, format].filter((name) => typeof name === "string").map((name) => quote(name));
  throw new FormatError({
    file,
    field: "quantization_config",
    problem: `the weights are quantised${by.length === 0 ? "" : ` by ${by.join(", format ")}`}, which is not read`,
    expected,
    hint,
  });
}

/** Tensors that only quantised weights have, by what their names end in. */
const suffixes: readonly [suffix: string, method: string][] = [
  [".qweight", "GPTQ or AWQ"],
  [".weight_packed", "compressed-tensors (packed)"],
  [".weight_scale_inv", "blocks of FP8"],
  [".SCB", "bitsandbytes (8 bits)"],
  [".weight.quant_map", "bitsandbytes (4 bits)"],
];

/** Weights whose config.json does not tell. @throws FormatError that names the method and a tensor */
export function refuseQuantizedNames(names: Iterable<string>, location: string): void {
  for (const name of names) {
    const found = suffixes.find(([suffix]) => name.endsWith(suffix));
    if (found === undefined) continue;
    throw new FormatError({
      file: location,
      field: name,
      problem: `the weights are quantised by ${found[1]}, which is not read`,
      expected,
      hint,
    });
  }
}
