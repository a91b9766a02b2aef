import type { BlockSpec, TensorRef } from "../../arch/index.js";
import { placesOf } from "../../arch/internal.js";
import { NonFiniteError, UsageError } from "../../core/index.js";
import { isWhole, writeReference } from "../../io/internal.js";
import { firstNonFiniteOf, type TensorSource } from "../../model/index.js";
import { elementCount } from "../../tensor/index.js";
import { type DecoderBlock, effectiveWeight, vectorsOf } from "./block.js";

/** A block as it stands in memory, ready to be loaded. */
export interface LoadableBlock {
  /** For messages. */
  readonly name: string;
  /** With the sizes that it has now. */
  readonly spec: BlockSpec;
  readonly source: TensorSource;
}

/**
 * What a block in memory is loaded from: its numbers as the tensors that its description names.
 * @param spec the block with the sizes that it has now
 * @throws NonFiniteError when one of its numbers is not finite
 */
export function loadable(location: string, block: DecoderBlock, spec: BlockSpec): LoadableBlock {
  const name = `${location}, block ${block.layer} as it is compressed`;
  const tensors = new Map<string, MemoryTensor>();
  const put = (ref: TensorRef, values: Float32Array) => {
    const { tensor, shape } = ref;
    const bad = firstNonFiniteOf(values);
    if (bad >= 0) throw new NonFiniteError(`${name}: entry ${bad} of ${tensor} is ${values[bad]}`);
    if (isWhole(ref)) {
      tensors.set(tensor, { shape, values });
      return;
    }
    const whole = tensors.get(tensor) ?? { shape, values: new Float32Array(elementCount(shape)) };
    writeReference(whole.values, ref, values);
    tensors.set(tensor, whole);
  };
  const vectors = [...block.vectors.values()];
  for (const [v, ref] of vectorsOf(spec).entries()) put(ref, vectors[v].values);
  const matrices = [...block.matrices.values()];
  for (const [m, { map }] of placesOf(spec).entries()) put(map.weight, effectiveWeight(matrices[m]));
  return { name, spec, source: memorySource(tensors) };
}

interface MemoryTensor {
  shape: readonly number[];
  values: Float32Array;
}

const memorySource = (tensors: ReadonlyMap<string, MemoryTensor>): TensorSource => ({
  tensors: new Map(Array.from(tensors, ([name, { shape }]) => [name, { name, dtype: "F32", shape }])),
  async read(name, byteOffset = 0, byteLength, into) {
    const { buffer, byteOffset: start, byteLength: total } = tensors.get(name)!.values;
    const bytes = new Uint8Array(buffer, start + byteOffset, byteLength ?? total - byteOffset);
    into?.set(bytes);
    return into ?? bytes.slice();
  },
  async readScales(name) {
    throw new UsageError(`${name} has no grid`);
  },
});
