import type { ModelConfig, TensorRef } from "../arch/index.js";
import { breathe, type JobOptions, NonFiniteError, Stage } from "../core/index.js";
import {
  type Checkpoint,
  encodeTensor,
  type FileSinks,
  type TensorDeclaration,
  type TensorToWrite,
  writeSafetensors,
} from "../io/index.js";
import { isWhole, partName, readReference, writeReference } from "../io/internal.js";
import { describeTrainable } from "../model/internal.js";
import { elementCount, firstNonFinite, fromFloat32, toFloat32 } from "../tensor/index.js";
import { factorPartShapes } from "../tensor/internal.js";
import type { Windows } from "./data/tokens.js";
import type { ModelParameter } from "./models/parameters.js";
import type { BatchControl, Objective } from "./objective.js";
import type { FactorPart, FloatArray, Values } from "./values.js";

/**
 * The config of a checkpoint that can be trained, its tensors checked: what the runtime runs, and mixtures of experts with
 * routers that it does not run.
 * @throws FormatError for a config that is wrong, ProblemsError with missing or mis-shaped tensors
 */
export const trainableConfig = async (checkpoint: Checkpoint): Promise<ModelConfig> =>
  (await describeTrainable(checkpoint)).config;

/** Reads the trainable tensors of a checkpoint as f32. */
export async function readWeights(
  checkpoint: Checkpoint,
  parameters: readonly ModelParameter[],
  { signal, onProgress }: JobOptions = {},
): Promise<Map<string, FloatArray>> {
  const stage = new Stage("read weights", parameters.length, "tensors", onProgress);
  const weights = new Map<string, FloatArray>(parameters.map(({ name }) => [name, new Float32Array()]));
  // What several parameters are parts of is read once.
  for (const parts of byTensor(parameters).values()) {
    const shared = new Map<string, Float32Array>();
    for (const { name, ref, part } of parts) {
      await breathe(signal);
      weights.set(
        name,
        await (part === undefined ? readReference(checkpoint, ref, shared) : readPart(checkpoint, part)),
      );
      stage.advance(1, name);
    }
  }
  return weights;
}

/** A part of a matrix in factors, which a checkpoint shows as the whole matrix. Those that are not learnt are noted beside it. */
async function readPart({ tensors }: Checkpoint, { of, name, integers }: FactorPart): Promise<Float32Array> {
  const parts = await tensors.get(of)!.factors!.read();
  for (const [part, numbers] of Object.entries(parts)) if (numbers instanceof Uint32Array) integers[part] = numbers;
  return (parts[name] as Float32Array).slice();
}

function byTensor<P extends StoredParameter>(parameters: readonly P[]): Map<string, P[]> {
  const parts = new Map<string, P[]>();
  for (const parameter of parameters) {
    const { tensor } = parameter.ref;
    const found = parts.get(tensor);
    if (found === undefined) parts.set(tensor, [parameter]);
    else found.push(parameter);
  }
  return parts;
}

/** Types that trained weights are stored in, by their names in safetensors. */
export type StoredFloat = "F32" | "F16" | "BF16";

/** Trained numbers, and where they lie in a checkpoint. */
export interface StoredParameter {
  name: string;
  ref: TensorRef;
  part?: FactorPart;
}

/**
 * Writes trained weights as a checkpoint, in the tensors that the model's description names.
 * @param dtypeOf stored type by name of a tensor
 * @param isPacked whether the zeros of a tensor are left out, as long as that is smaller
 * @returns how tensors lie in the files that are not stored entry by entry
 * @throws NonFiniteError before anything is written
 */
export async function writeWeights(
  sinks: FileSinks,
  parameters: readonly StoredParameter[],
  weights: Values,
  dtypeOf: (tensor: string) => StoredFloat,
  { isPacked = () => false, ...options }: JobOptions & { isPacked?(tensor: string): boolean } = {},
): Promise<Record<string, TensorDeclaration>> {
  for (const { name, ref } of parameters) {
    const dtype = dtypeOf(ref.tensor);
    const values = weights.get(name) as Float32Array;
    const bad = firstNonFinite(dtype, fromFloat32(dtype, values));
    if (bad >= 0) {
      throw new NonFiniteError(
        `${name}: entry ${bad} is ${values[bad]} after training, which cannot be stored as ${dtype}; nothing was written`,
      );
    }
  }
  const declarations: Record<string, TensorDeclaration> = {};
  const tensors = Array.from(byTensor(parameters)).flatMap(([name, parts]): TensorToWrite[] => {
    const { shape } = parts[0].ref;
    const dtype = dtypeOf(name);
    if (!isPacked(name)) return [{ name, shape, dtype, bytes: () => [fromFloat32(dtype, wholeOf(parts, weights))] }];
    const values = toFloat32(dtype, fromFloat32(dtype, wholeOf(parts, weights)));
    const encoded = encodeTensor(name, { shape, values }, "packed", dtype);
    if (encoded.declaration !== undefined) declarations[name] = encoded.declaration;
    return encoded.tensors.map(({ bytes, ...tensor }) => ({ ...tensor, bytes: () => [bytes] }));
  });
  await writeSafetensors(sinks, [...tensors, ...integersOf(parameters)], options);
  return declarations;
}

/** Parts of factors that are not learnt, as they were read. */
function integersOf(parameters: readonly StoredParameter[]): TensorToWrite[] {
  const matrices = new Map(parameters.flatMap(({ part }) => (part ? [[part.of, part] as const] : [])));
  return Array.from(matrices.values()).flatMap(({ of, form, shape, integers }) =>
    Object.entries(integers).map(([name, numbers]) => ({
      name: partName(of, name),
      dtype: "U32" as const,
      shape: factorPartShapes(form, shape)[name].shape,
      bytes: () => [new Uint8Array(numbers.slice().buffer)],
    })),
  );
}

/** f32: a tensor of what its parts hold. */
function wholeOf(parts: readonly StoredParameter[], weights: Values): Float32Array {
  const [{ name, ref }] = parts;
  if (isWhole(ref)) return weights.get(name) as Float32Array;
  const whole = new Float32Array(elementCount(ref.shape));
  for (const { name, ref } of parts) writeReference(whole, ref, weights.get(name) as Float32Array);
  return whole;
}

/**
 * Mean negative log likelihood over windows in their order; the convention of `rarefy eval`, but that windows meet.
 * @param control steers the model through its batches, as in training
 */
export async function meanLoss(
  objective: Objective,
  weights: Values,
  windows: Windows,
  maxWindows: number,
  { signal, onProgress, control }: JobOptions & { control?: BatchControl } = {},
): Promise<number> {
  const batches = [...windows.inOrder(maxWindows)];
  const stage = new Stage("evaluate", batches.length, "batches", onProgress);
  let sum = 0;
  for (const batch of batches) {
    await breathe(signal);
    const arrays = control?.evaluationArrays?.() ?? control?.arrays();
    sum += await objective.loss(weights, { ...batch, ...arrays });
    stage.advance(1);
  }
  return sum / batches.length;
}
