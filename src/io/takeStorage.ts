import { FormatError, quote } from "../core/index.js";
import { isJsonObject } from "./json.js";
import type { QuantizationRecord } from "./quantized/sourceFormat.js";

/** What a config.json says of weights that compressed-tensors stored sparsely. */
export type SparseFormat = "sparse-bitmask" | "sparse-24-bitmask";

const sparseFormats: readonly string[] = ["sparse-bitmask", "sparse-24-bitmask"] satisfies SparseFormat[];

/** Where releases put the record: newest first. */
const holders = ["quantization_config", "compression_config"] as const;

/** What a config.json says of how its weights are stored. */
export interface Storage {
  /** The config of the same model with plain weights. */
  config: unknown;
  sparse?: SparseFormat;
  quantized?: QuantizationRecord;
}

/**
 * Takes what is said of storage out of a parsed config.json.
 * @throws FormatError for a sparse format that is not known
 */
export function takeStorage(raw: unknown, file: string): Storage {
  if (!isJsonObject(raw)) return { config: raw };
  const holder = holders.find((name) => raw[name] != null);
  const { quantization_config: _quantization, compression_config: _compression, ...config } = raw;
  if (holder === undefined) return { config };
  const record = raw[holder];
  if (!isJsonObject(record))
    throw new FormatError({ file, field: holder, problem: `${quote(record)}`, expected: "an object" });
  const { sparsity_config: sparsity, ...quantization } = record;
  const format = isJsonObject(sparsity) ? sparsity.format : undefined;
  const isSparse = typeof format === "string" && sparseFormats.includes(format);
  if (!isSparse && format !== "dense" && format !== undefined) {
    throw new FormatError({
      file,
      field: `${holder}.sparsity_config.format`,
      problem: `${quote(format)} is not supported`,
      expected: `one of ${sparseFormats.join(", ")}, dense`,
    });
  }
  return {
    config,
    ...(isSparse && { sparse: format as SparseFormat }),
    ...(isQuantized(quantization, isJsonObject(sparsity)) && { quantized: quantization }),
  };
}

/** Compressed-tensors leaves a record of nothing beside plain weights, and one beside sparse ones. */
function isQuantized(
  { quant_method: method, config_groups: groups }: QuantizationRecord,
  isOfSparsity: boolean,
): boolean {
  if (isJsonObject(groups)) return Object.keys(groups).length > 0;
  return method !== "compressed-tensors" && !isOfSparsity;
}
