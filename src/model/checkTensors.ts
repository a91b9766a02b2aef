import type { ModelConfig } from "../arch/index.js";
import { ProblemsError } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import type { DType } from "../tensor/index.js";
import { blockLinears, type DecoderLayout, layoutTensors } from "./layout.js";

const weightDTypes: readonly DType[] = ["F32", "F16", "BF16"];

/**
 * Compares what the config asks for with what the checkpoint holds, before any weight is read.
 * @throws ProblemsError with every size that cannot be run and every missing or mis-shaped tensor.
 */
export function checkTensors(checkpoint: Checkpoint, config: ModelConfig, layout: DecoderLayout): void {
  const problems: string[] = [];
  const checkFours = (what: string, size: number) => {
    if (size % 4 !== 0) problems.push(`${what} is ${size}; only multiples of 4 can be run`);
  };
  checkFours("hiddenSize", config.hiddenSize);
  checkFours("headDim", config.headDim);
  for (const size of new Set(config.blocks.map((block) => block.intermediateSize)))
    checkFours("intermediateSize", size);
  for (const { lowRank } of layout.blocks.flatMap(blockLinears)) {
    if (lowRank !== undefined) checkFours(`the rank of ${lowRank.right.name}`, lowRank.right.shape[0]);
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
