import { ProblemsError } from "../core/index.js";
import type { Checkpoint, ModelConfig } from "../io/index.js";
import type { DType } from "../tensor/index.js";
import { type DecoderLayout, layoutTensors } from "./layout.js";

const weightDTypes: readonly DType[] = ["F32", "F16", "BF16"];

/**
 * Compares what the config asks for with what the checkpoint holds, before any weight is read.
 * @throws ProblemsError with every size that cannot be run and every missing or mis-shaped tensor.
 */
export function checkTensors(checkpoint: Checkpoint, config: ModelConfig, layout: DecoderLayout): void {
  const problems: string[] = [];
  for (const field of ["hiddenSize", "intermediateSize", "headDim"] as const) {
    if (config[field] % 4 !== 0) problems.push(`${field} is ${config[field]}; only multiples of 4 can be run`);
  }
  for (const { name, shape } of layoutTensors(layout)) {
    const found = checkpoint.tensors.get(name);
    const wanted = `[${shape.join(", ")}]`;
    if (found === undefined) {
      problems.push(`${name} ${wanted} is missing`);
      continue;
    }
    if (found.shape.length !== shape.length || found.shape.some((size, axis) => size !== shape[axis])) {
      problems.push(`${name} is [${found.shape.join(", ")}]; expected ${wanted}`);
    }
    if (!weightDTypes.includes(found.dtype)) {
      problems.push(`${name} is ${found.dtype}; expected ${weightDTypes.join(", ")}`);
    }
  }
  if (problems.length > 0) {
    throw new ProblemsError(
      `${checkpoint.location}: the tensors do not fit a ${config.modelType} model of ${config.layers} layers`,
      problems,
    );
  }
}
