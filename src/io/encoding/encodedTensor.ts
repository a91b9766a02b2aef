import { FormatError } from "../../core/index.js";
import type { TensorDeclaration } from "./declaration.js";
import { decodeRows, type Parts, readScales } from "./decode.js";
import { openFactors } from "./factoredTensor.js";
import type { EncodedTensor, RawTensors } from "./logicalTensor.js";
import { elementsOf } from "./mask.js";
import { encodedBytes, type PartId, type PartInfo, partName, partsOf } from "./parts.js";

/**
 * A matrix that rarefy.json declares, over the raw tensors that hold its parts.
 * @throws FormatError when a part is missing or has another dtype or shape than the declaration asks for
 */
export function openEncoded(name: string, declaration: TensorDeclaration, raw: RawTensors): EncodedTensor {
  const file = raw.location;
  const fail = (problem: string, expected?: string) =>
    new FormatError({ file, field: name, problem, expected, hint: "The rarefy.json belongs to other weights" });
  if (raw.info(name) !== undefined) throw fail("it is stored as plain values, and rarefy.json declares it otherwise");
  for (const [part, expected] of partsOf(declaration)) {
    const found = raw.info(partName(name, part));
    if (found === undefined) throw fail(`its part ${part} is missing`, inWords(expected));
    if (inWords(found) !== inWords(expected)) throw fail(`its part ${part} is ${inWords(found)}`, inWords(expected));
  }

  if (declaration.encoding === "factors") return openFactors(name, declaration, raw);
  const { shape, dtype, encoding } = declaration;
  const [rows, cols] = shape;
  const read = (part: PartId, byteOffset: number, byteLength: number) =>
    raw.read(partName(name, part), byteOffset, byteLength);
  const parts: Parts = {
    file,
    name,
    read,
    async offsets(start, count) {
      if (declaration.encoding !== "bitmask") {
        return Float64Array.from({ length: count + 1 }, (_, r) => ((start + r) * cols) / 2);
      }
      // After the last row there is no offset; the number of values takes its place.
      const stored = Math.min(count + 1, rows - start);
      const found = elementsOf(await read("row_offsets", start * 4, stored * 4), 4);
      return Float64Array.from({ length: count + 1 }, (_, r) => (r < stored ? found[r] : declaration.nonZeros));
    },
  };
  const grid = declaration.encoding === "24-bitmask" ? undefined : declaration.grid;
  return {
    info: { name, dtype, shape, encoding, storedBytes: encodedBytes(declaration), ...(grid && { grid }) },
    readRows: (start, count) => decodeRows(declaration, parts, start, count),
    ...(grid && { readScales: (start: number, count: number) => readScales(grid, cols, parts, start, count) }),
  };
}

const inWords = ({ dtype, shape }: PartInfo) => `${dtype} [${shape.join(", ")}]`;
