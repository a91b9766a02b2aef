import { Option } from "commander";
import {
  type ExportFormat,
  type ExportResult,
  type ExportType,
  exportTypes,
  resolveModel,
} from "../../io/index.node.js";
import { exportAndCompare } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption } from "../compressionOptions.js";
import { bytes, count, facts, percent, printable } from "../format.js";
import { modelArgument } from "../options.js";

interface ExportOptions extends CommonOptions {
  format: ExportFormat;
  type?: ExportType;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<ExportOptions> = {
  description:
    "Decodes what rarefy stores in its own encodings, multiplies low-rank pairs out, and writes weights, config and tokenizer. The " +
    "export is read back, every weight and some texts are compared with the original, and only then it gets its name. gguf " +
    "writes one file for llama.cpp; safetensors a directory with plain values, zeros included, for Hugging Face and vLLM; " +
    "compressed-tensors the legacy sparse-bitmask or sparse-24-bitmask layout. Thresholds of activation sparsity have no place " +
    "in GGUF.",
  arguments: [modelArgument],
  options: [
    new Option("--format <format>", "what to write").choices(Object.keys(exportTypes)).makeOptionMandatory(),
    new Option("--type <type>", "type of the weights (default: f16 in gguf, as stored in the others)").choices(
      exportTypes.gguf,
    ),
    new Option("-o, --output <path>", "a .gguf file, or a directory").makeOptionMandatory(),
    forceOption(),
  ],
  examples: [
    "rarefy export tiny-6m --format gguf --type q8_0 -o tiny-6m.gguf",
    "rarefy export tiny-6m --format safetensors --type f16 -o tiny-6m-f16",
  ],
  async run(context, { format, type, output, force }, [argument]) {
    const files = await resolveModel(argument, context);
    const { signal, onProgress } = context;
    const result = await exportAndCompare(files, output, { format, type, force, signal, onProgress });
    const document = { model: files.location, output, ...result };
    context.print(render(document));
    return document;
  },
};

function render(document: ExportResult & { model: string; output: string }): string {
  const { verification, sparseFormat, sparsity } = document;
  const { tensors, unchanged, largestRelativeError } = verification;
  return `${facts([
    ["model", printable(document.model)],
    ["wrote", `${document.output}, ${bytes(document.bytesOnDisk)}`],
    ["format", `${sparseFormat ?? document.format}, ${document.type}`],
    ...(sparsity === undefined ? [] : [["zeros", `${percent(sparsity, 1)} of the compressed matrices`] as const]),
    [
      "read back",
      unchanged === tensors
        ? `all ${count(tensors)} tensors as they were, same tokens`
        : `${unchanged} of ${tensors} tensors as they were, relative error of the others at most ${largestRelativeError.toPrecision(2)} (root mean square), same tokens`,
    ],
  ])}\n`;
}
