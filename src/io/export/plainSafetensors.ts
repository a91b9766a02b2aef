import { fromFloat32 } from "../../tensor/index.js";
import type { FloatDType } from "../encoding/index.js";
import type { TensorToWrite } from "../safetensorsWriter.js";
import type { Weights } from "../weights.js";
import { rowChunks } from "./rowChunks.js";

/** A tensor as plain values, zeros included, in a type of its own choice or the one it is known to fit. */
export function plainTensor(weights: Weights, dtype: FloatDType = weights.dtype): TensorToWrite {
  return {
    name: weights.name,
    dtype,
    shape: weights.shape,
    async *bytes() {
      for await (const { values } of rowChunks(weights)) yield fromFloat32(dtype, values);
    },
  };
}
