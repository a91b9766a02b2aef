import { type FactorParts, type Factors, fromFloat32, type Tensor } from "../../tensor/index.js";
import type { TensorDeclaration } from "./declaration.js";
import type { FloatDType } from "./floatDType.js";
import { partName, partsOf } from "./parts.js";

/** A matrix as its factors: what goes into the safetensors file, and into `tensors` of rarefy.json under its name. */
export function encodeFactors(
  name: string,
  shape: readonly [rows: number, cols: number],
  { factors, parts }: { factors: Factors; parts: FactorParts },
  values: FloatDType,
): { tensors: Tensor[]; declaration: TensorDeclaration } {
  const declaration: TensorDeclaration = { encoding: "factors", dtype: "F32", shape: [...shape], values, factors };
  const tensors = Array.from(partsOf(declaration), ([part, info]): Tensor => {
    const numbers = parts[part];
    const bytes =
      numbers instanceof Uint32Array
        ? new Uint8Array(numbers.slice().buffer)
        : fromFloat32(
            values,
            Float32Array.from(numbers, (value) => value + 0),
          );
    return { name: partName(name, part), ...info, bytes };
  });
  return { tensors, declaration };
}
