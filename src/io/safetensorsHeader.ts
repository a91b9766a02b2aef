import { FormatError, quote } from "../core/index.js";
import { type DType, dtypeBytes, type TensorInfo } from "../tensor/index.js";
import { isDType } from "../tensor/internal.js";
import { isJsonObject, parseJson } from "./json.js";

/** A tensor of a safetensors file and where its bytes lie. */
export interface StoredTensor extends TensorInfo {
  /** From the start of the file. */
  byteOffset: number;
  byteLength: number;
}

/** The header of a safetensors file: every tensor with its place, and the metadata. */
export interface SafetensorsHeader {
  /** In the order of their bytes. */
  tensors: ReadonlyMap<string, StoredTensor>;
  /** `__metadata__`; empty when there is none. */
  metadata: ReadonlyMap<string, string>;
}

/** The limit of the reference implementation. */
export const maxHeaderBytes = 100_000_000;
/** Some ten for a tensor. */
const maxHeaderValues = 4_000_000;

/**
 * Parses the JSON header of a safetensors file and checks every field against the file.
 * @param header the JSON, without the 8 bytes of its length in front
 * @param dataStart where tensor bytes begin: 8 + header length
 * @param fileLength of the whole file; the tensors must fill it from `dataStart` to the end
 * @throws FormatError naming the tensor
 */
export function parseSafetensorsHeader(
  header: Uint8Array,
  dataStart: number,
  fileLength: number,
  file: string,
): SafetensorsHeader {
  if (header[0] !== 0x7b) throw new FormatError({ file, problem: "the header does not begin with {" });
  const root = parseJson(header, file, { values: maxHeaderValues });
  if (!isJsonObject(root)) throw new FormatError({ file, problem: "the header is not a JSON object" });

  let metadata: ReadonlyMap<string, string> = new Map();
  const tensors: StoredTensor[] = [];
  for (const [name, entry] of Object.entries(root)) {
    // The reference implementation takes null for none.
    if (name === "__metadata__") metadata = entry === null ? metadata : parseMetadata(entry, file);
    else tensors.push(parseTensor(name, entry, dataStart, fileLength, file));
  }

  tensors.sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataStart;
  for (const tensor of tensors) {
    if (tensor.byteOffset !== end) {
      throw new FormatError({
        file,
        field: tensor.name,
        problem: `its bytes ${tensor.byteOffset < end ? "overlap those of another tensor" : "follow a hole"}`,
        expected: `data_offsets beginning at ${end - dataStart}`,
      });
    }
    end += tensor.byteLength;
  }
  if (end !== fileLength) {
    throw new FormatError({
      file,
      problem: `the tensors end at byte ${end}, the file at ${fileLength}`,
      expected: "no bytes after the last tensor",
    });
  }
  return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata };
}

function parseMetadata(entry: unknown, file: string): ReadonlyMap<string, string> {
  const field = "__metadata__";
  if (!isJsonObject(entry)) throw new FormatError({ file, field, problem: "not a JSON object" });
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string") {
      throw new FormatError({ file, field: `${field}.${key}`, problem: "not a string" });
    }
  }
  return new Map(Object.entries(entry) as [string, string][]);
}

function parseTensor(name: string, entry: unknown, dataStart: number, fileLength: number, file: string): StoredTensor {
  const fail = (problem: string, expected?: string) => new FormatError({ file, field: name, problem, expected });
  if (!isJsonObject(entry)) throw fail("its entry is not a JSON object");
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !isDType(dtype)) {
    throw fail(`dtype ${quote(dtype)} is not known`, `one of ${Object.keys(dtypeBytes).join(", ")}`);
  }
  if (!isCounts(shape)) throw fail(`shape ${quote(shape)}`, "a list of integers ≥ 0");
  if (!isCounts(offsets) || offsets.length !== 2) {
    throw fail(`data_offsets ${quote(offsets)}`, "two integers ≥ 0");
  }
  const [begin, end] = offsets;
  if (begin > end || end > fileLength - dataStart) {
    throw fail(`data_offsets [${begin}, ${end}]`, `a range inside the ${fileLength - dataStart} bytes of data`);
  }
  const byteLength = safeByteLength(dtype, shape);
  if (byteLength !== end - begin) {
    throw fail(
      `${end - begin} bytes for ${dtype} ${quote(shape)}`,
      byteLength === undefined ? "a shape of whole bytes, fewer than 2⁵³" : `${byteLength} bytes`,
    );
  }
  return { name, dtype, shape, byteOffset: dataStart + begin, byteLength };
}

/** undefined when the product of the sizes, even before a zero in it, leaves the exact integers. */
function safeByteLength(dtype: DType, shape: readonly number[]): number | undefined {
  let count = 1;
  for (const size of shape) {
    count *= size;
    if (!Number.isSafeInteger(count * 8)) return undefined;
  }
  // Of types below a byte only whole bytes can be stored.
  const bytes = count * dtypeBytes[dtype];
  return Number.isInteger(bytes) ? bytes : undefined;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}
