import { FormatError } from "../../core/index.js";
import { dtypeBytes, elementCount, type TensorInfo } from "../../tensor/index.js";
import type { PackedDeclaration } from "../encoding/declaration.js";
import { decodeRows, type EncodedTensor, type PartId, partsOf, type RawTensors } from "../encoding/index.js";
import type { SparseFormat } from "../takeStorage.js";

/** Suffixes of the raw tensors of a matrix, by what they are to ours. */
const suffixes = { values: "compressed", bitmask: "bitmask", row_offsets: "row_offsets" } as const;

/**
 * The sparse matrices of a legacy compressed-tensors checkpoint: `<stem>.compressed` (values), `.bitmask`, `.shape` and, in
 * `sparse-bitmask`, `.row_offsets` together are `<stem>.weight`.
 * @param names of all raw tensors
 * @returns the matrices, and the names of the raw tensors they are made of
 * @throws FormatError when parts are missing or contradict each other
 */
export async function openCompressedTensors(
  format: SparseFormat,
  names: Iterable<string>,
  raw: RawTensors,
): Promise<{ encoded: Map<string, EncodedTensor>; used: Set<string> }> {
  const encoded = new Map<string, EncodedTensor>();
  const used = new Set<string>();
  for (const name of names) {
    if (!name.endsWith(`.${suffixes.values}`)) continue;
    const stem = name.slice(0, -suffixes.values.length - 1);
    const tensor = await openMatrix(format, stem, raw);
    encoded.set(tensor.info.name, tensor);
    for (const suffix of [...Object.values(suffixes), "shape"]) used.add(`${stem}.${suffix}`);
  }
  return { encoded, used };
}

async function openMatrix(format: SparseFormat, stem: string, raw: RawTensors): Promise<EncodedTensor> {
  // The first releases kept ".weight" in front of the suffix.
  const name = stem.endsWith(".weight") ? stem : `${stem}.weight`;
  const fail = (problem: string, expected?: string) =>
    new FormatError({ file: raw.location, field: name, problem, expected });
  const part = (suffix: string): TensorInfo => {
    const found = raw.info(`${stem}.${suffix}`);
    if (found === undefined) throw fail(`its part ${suffix} is missing`);
    return found;
  };
  if (raw.info(name) !== undefined) throw fail("it is stored both as plain values and compressed");
  const shape = await readShape(`${stem}.shape`, part("shape"), raw, fail);
  const [rows, cols] = shape.length === 1 ? [1, shape[0]] : shape;
  const declaration = declarationOf(format, part(suffixes.values), [rows, cols], fail);

  let storedBytes = 0;
  for (const [id, expected] of partsOf(declaration)) {
    const found = part(suffixes[id as keyof typeof suffixes]);
    // Their offsets have 64 bits.
    const dtype = id === "row_offsets" ? "I64" : expected.dtype;
    if (found.dtype !== dtype || found.shape.join() !== expected.shape.join()) {
      throw fail(
        `its part ${suffixes[id as keyof typeof suffixes]} is ${found.dtype} [${found.shape.join(", ")}]`,
        `${dtype} [${expected.shape.join(", ")}]`,
      );
    }
    storedBytes += elementCount(found.shape) * dtypeBytes[found.dtype];
  }
  const parts = {
    file: raw.location,
    name,
    read: (id: PartId, byteOffset: number, byteLength: number) =>
      raw.read(`${stem}.${suffixes[id as keyof typeof suffixes]}`, byteOffset, byteLength),
    async offsets(start: number, count: number) {
      if (declaration.encoding !== "bitmask") {
        return Float64Array.from({ length: count + 1 }, (_, r) => ((start + r) * cols) / 2);
      }
      const stored = Math.min(count + 1, rows - start);
      const bytes = await raw.read(`${stem}.row_offsets`, start * 8, stored * 8);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return Float64Array.from({ length: count + 1 }, (_, r) =>
        r < stored ? Number(view.getBigInt64(r * 8, true)) : declaration.nonZeros,
      );
    },
  };
  return {
    info: { name, dtype: declaration.dtype, shape, encoding: format, storedBytes },
    async readRows(start, count) {
      if (shape.length === 2) return decodeRows(declaration, parts, start, count);
      const size = dtypeBytes[declaration.dtype];
      return (await decodeRows(declaration, parts, 0, 1)).slice(start * size, (start + count) * size);
    },
  };
}

type Fail = (problem: string, expected?: string) => FormatError;

/** Stored as I64 [2], [2, 1] or, of a vector, [1]. */
async function readShape(name: string, info: TensorInfo, raw: RawTensors, fail: Fail): Promise<number[]> {
  const count = elementCount(info.shape);
  if (info.dtype !== "I64" || count < 1 || count > 2) {
    throw fail(`its part shape is ${info.dtype} [${info.shape.join(", ")}]`, "I64 [2]");
  }
  const bytes = await raw.read(name, 0, count * 8);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: count }, (_, i) => Number(view.getBigInt64(i * 8, true)));
  if (shape.every((size) => size >= 1 && size <= 2 ** 31)) return shape;
  throw fail(`shape [${shape.join(", ")}]`, "sizes from 1 to 2³¹");
}

function declarationOf(format: SparseFormat, values: TensorInfo, shape: number[], fail: Fail): PackedDeclaration {
  const { dtype } = values;
  if (dtype !== "F32" && dtype !== "BF16" && dtype !== "F16") throw fail(`${dtype} values`, "F32, BF16 or F16");
  if (format === "sparse-bitmask") {
    return { encoding: "bitmask", dtype, shape, nonZeros: elementCount(values.shape) };
  }
  if (shape[1] % 4 !== 0) throw fail(`${shape[1]} columns in ${format}`, "a multiple of 4");
  return { encoding: "24-bitmask", dtype, shape };
}
