import { quote } from "../../core/index.js";
import type { TensorInfo } from "../../tensor/index.js";
import type { EncodedTensor, RawTensors } from "../encoding/index.js";
import { MatrixParts } from "./matrixParts.js";
import { type QuantizationRecord, type SourceReader, unread } from "./sourceFormat.js";
import { sourceFormats } from "./sourceFormats.js";

/** How the weights of a model are quantised, by what its config says. */
export interface QuantizedSource {
  /** In words: "GPTQ, 4 bits, groups of 128". */
  readonly description: string;
  readonly title: string;
  readonly reader: SourceReader;
}

/** @throws FormatError naming the method, where it is not read or its settings are not */
export function quantizedSource(record: QuantizationRecord, file: string): QuantizedSource {
  const method = methodOf(record);
  if (!Object.hasOwn(sourceFormats, method)) {
    const by = [method, record.format]
      .filter((name) => typeof name === "string" && name !== "")
      .map((name) => quote(name));
    const what = `the weights are quantised${by.length === 0 ? "" : ` by ${by.join(", format ")}`}, which is not read`;
    throw unread(
      file,
      "quant_method",
      what,
      `one of ${Object.keys(sourceFormats).join(", ")}, or weights in f32, f16 or bf16`,
    );
  }
  const { title, reader } = sourceFormats[method];
  const opened = reader(record, file);
  return { title, reader: opened, description: `${title}, ${opened.details}` };
}

/** Old records leave out the method. */
function methodOf({ quant_method: method, ...record }: QuantizationRecord): string {
  if (method != null) return typeof method === "string" ? method : quote(method);
  if (record.load_in_4bit === true || record.load_in_8bit === true) return "bitsandbytes";
  return record.config_groups === undefined ? "" : "compressed-tensors";
}

/** What is stored for activations and caches, which are computed in f32 here. */
const ofActivations =
  /\.(?:(?:input|output)_(?:scale|global_scale|zero_point)|activation_scale|input_scale_ub|[qkv]_(?:scale|zero_point)|prob_scale)$/;

/**
 * Opens the quantised matrices of a checkpoint.
 * @param tensors all raw tensors
 * @returns the matrices, and the names of the raw tensors that they are made of
 * @throws FormatError where parts of a matrix are missing or do not fit each other
 */
export async function openQuantized(
  { title, reader }: QuantizedSource,
  raw: RawTensors,
  tensors: Iterable<TensorInfo>,
): Promise<{ encoded: Map<string, EncodedTensor>; used: Set<string> }> {
  const encoded = new Map<string, EncodedTensor>();
  const used = new Set<string>();
  const seen = new Set<string>();
  for (const info of tensors) {
    if (ofActivations.test(info.name)) used.add(info.name);
    const stem = reader.stemOf(info.name, info);
    if (stem === undefined || seen.has(stem)) continue;
    seen.add(stem);
    const parts = new MatrixParts(stem, title, raw);
    const tensor = await reader.open(parts);
    for (const name of parts.used) used.add(name);
    if (tensor === undefined) {
      used.delete(`${stem}.weight`);
      continue;
    }
    const { name } = tensor.info;
    if (raw.info(name) !== undefined && !parts.used.has(name)) {
      throw parts.fail("it is stored both as plain values and quantised");
    }
    encoded.set(name, tensor);
  }
  return { encoded, used };
}
