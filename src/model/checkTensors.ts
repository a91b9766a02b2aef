import { linearsOf, type ModelConfig, stepsOf } from "../arch/index.js";
import { ProblemsError } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import type { DType } from "../tensor/index.js";
import { storedMap, storedTensors } from "./forms.js";

const weightDTypes: readonly DType[] = ["F32", "F16", "BF16"];

/**
 * Compares what the config asks for with what the checkpoint holds, before any weight is read.
 * @throws ProblemsError with every size that cannot be run and every missing or mis-shaped tensor.
 */
export function checkTensors(checkpoint: Checkpoint, { spec, modelType }: ModelConfig): void {
  const problems = new Set<string>();
  const checkFours = (what: string, size: number) => {
    if (size % 4 !== 0) problems.add(`${what} is ${size}; only multiples of 4 can be run`);
  };
  checkFours("hiddenSize", spec.hiddenSize);
  for (const block of spec.blocks) {
    for (const step of stepsOf(block)) {
      if (step.do === "attend") for (const width of [step.kv.k, step.kv.v]) checkFours("headDim", width);
    }
    for (const map of linearsOf(block)) {
      if (map.units?.some(({ kind, axis }) => kind === "neurons" && axis === "cols")) {
        checkFours("intermediateSize", map.cols);
      }
      const { lowRank } = storedMap(map, checkpoint.tensors);
      if (lowRank !== undefined) checkFours(`the rank of ${lowRank.right.tensor}`, lowRank.rank);
    }
  }
  for (const { name, shape } of storedTensors(spec, checkpoint.tensors)) {
    const found = checkpoint.tensors.get(name);
    const wanted = `[${shape.join(", ")}]`;
    if (found === undefined) {
      problems.add(`${name} ${wanted} is missing`);
      continue;
    }
    if (found.shape.length !== shape.length || found.shape.some((size, axis) => size !== shape[axis])) {
      problems.add(`${name} is [${found.shape.join(", ")}]; expected ${wanted}`);
    }
    if (!weightDTypes.includes(found.dtype)) {
      problems.add(`${name} is ${found.dtype}; expected ${weightDTypes.join(", ")}`);
    }
  }
  if (problems.size > 0) {
    throw new ProblemsError(
      `${checkpoint.location}: the tensors do not fit a ${modelType} model of ${spec.blocks.length} layers`,
      [...problems],
    );
  }
}
