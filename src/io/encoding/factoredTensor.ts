import { FormatError } from "../../core/index.js";
import { byteLengthOf, elementCount, type FactorParts, fromFloat32, toFloat32 } from "../../tensor/index.js";
import { factorRows } from "../../tensor/internal.js";
import { checkFinite } from "../checkFinite.js";
import type { TensorDeclaration } from "./declaration.js";
import type { EncodedTensor, RawTensors } from "./logicalTensor.js";
import { elementsOf } from "./mask.js";
import { encodedBytes, partName, partsOf } from "./parts.js";

/** Numbers that a matrix may have for every number that is stored of it: a small file must not ask for all memory. */
const largestExpansion = 65_536;
const alwaysAllowed = 2 ** 24;

/** A matrix whose rows are made from its factors; its parts are known to be there. @throws FormatError */
export function openFactors(
  name: string,
  declaration: TensorDeclaration & { encoding: "factors" },
  raw: RawTensors,
): EncodedTensor {
  const { factors: form, shape, dtype, encoding } = declaration;
  const [rows, cols] = shape;
  const infos = partsOf(declaration);
  const stored = Array.from(infos.values()).reduce((sum, part) => sum + elementCount(part.shape), 0);
  if (rows * cols > Math.max(alwaysAllowed, stored * largestExpansion)) {
    throw new FormatError({
      file: raw.location,
      field: name,
      problem: `factors of ${stored} numbers make a matrix of ${rows} × ${cols}`,
      expected: `at most ${largestExpansion} entries for every number`,
    });
  }
  let parts: Promise<FactorParts> | undefined;
  const readAll = async (): Promise<FactorParts> => {
    const read: Record<string, Float32Array | Uint32Array> = {};
    for (const [part, info] of infos) {
      const at = partName(name, part);
      const tensor = raw.info(at)!;
      const bytes = await raw.read(at, 0, byteLengthOf(info));
      if (info.dtype === "U32") read[part] = elementsOf(bytes, 4) as Uint32Array;
      else {
        checkFinite(raw.location, tensor, bytes);
        read[part] = toFloat32(info.dtype, bytes);
      }
    }
    if (form.kind === "morphemes")
      checkIndex(read.index as Uint32Array, form.morphemes, raw.location, partName(name, "index"));
    return read;
  };
  const read = () => {
    parts ??= readAll();
    return parts;
  };
  return {
    info: { name, dtype, shape, encoding, storedBytes: encodedBytes(declaration), factors: { form, read } },
    async readRows(start, count) {
      const write = factorRows(form, { rows, cols }, await read());
      const out = new Float32Array(count * cols);
      for (let r = 0; r < count; r++) write(start + r, out.subarray(r * cols, (r + 1) * cols));
      return fromFloat32("F32", out);
    },
  };
}

function checkIndex(index: Uint32Array, count: number, file: string, field: string): void {
  const bad = index.findIndex((morpheme) => morpheme >= count);
  if (bad < 0) return;
  throw new FormatError({ file, field, problem: `entry ${bad} is ${index[bad]}`, expected: `numbers below ${count}` });
}
