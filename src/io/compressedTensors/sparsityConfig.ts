import { FormatError, quote } from "../../core/index.js";
import { isJsonObject } from "../json.js";

/** What a config.json says of weights that compressed-tensors stored sparsely. */
export type SparseFormat = "sparse-bitmask" | "sparse-24-bitmask";

const sparseFormats: readonly string[] = ["sparse-bitmask", "sparse-24-bitmask"] satisfies SparseFormat[];

/** Where releases put `sparsity_config`: newest first. */
const holders = ["quantization_config", "compression_config"] as const;

/**
 * Takes the sparsity record out of a parsed config.json.
 * @returns the format, undefined when weights are plain; and the config of the same model with plain weights. A record of
 * quantised weights stays where it is.
 * @throws FormatError for a sparse format that is not known
 */
export function takeSparsityConfig(
  config: unknown,
  file: string,
): { config: unknown; format: SparseFormat | undefined } {
  if (!isJsonObject(config)) return { config, format: undefined };
  for (const holder of holders) {
    const record = config[holder];
    if (!isJsonObject(record)) continue;
    const sparsity = record.sparsity_config ?? undefined;
    // A record of nothing: compressed-tensors leaves one beside plain weights.
    const isEmpty = record.quant_method === "compressed-tensors" && sparsity === undefined && !isQuantized(record);
    if (!isEmpty && !isJsonObject(sparsity)) continue;
    const format = isJsonObject(sparsity) ? sparsity.format : undefined;
    const sparse = typeof format === "string" && sparseFormats.includes(format);
    if (!sparse && format !== "dense" && format !== undefined) {
      throw new FormatError({
        file,
        field: `${holder}.sparsity_config.format`,
        problem: `${quote(format)} is not supported`,
        expected: `one of ${sparseFormats.join(", ")}, dense`,
      });
    }
    const { [holder]: _record, ...rest } = config;
    const { sparsity_config: _sparsity, ...quantization } = record;
    return {
      config: isQuantized(record) ? { ...rest, quantization_config: quantization } : rest,
      format: sparse ? (format as SparseFormat) : undefined,
    };
  }
  return { config, format: undefined };
}

const isQuantized = ({ config_groups: groups }: Record<string, unknown>) =>
  isJsonObject(groups) && Object.keys(groups).length > 0;
