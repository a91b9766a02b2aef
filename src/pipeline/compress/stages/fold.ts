import type { NormSpec, TensorRef } from "../../../arch/index.js";
import { InputStatistics } from "../../../compress/index.js";
import { divideChannels, divideRows, multiplyColumns } from "../../../compress/internal.js";
import type { DecoderBlock, InputKey, MatrixInput } from "../block.js";

/** Whether factors of an input's channels can go into whatever makes it: not into value heads that several heads share. */
export function foldable({ sizes }: DecoderBlock, { maker }: MatrixInput): boolean {
  if (maker === undefined) return false;
  return !("map" in maker && maker.ofValueHeads) || sizes.kvHeads === sizes.queryHeads;
}

/** What enters a place, all parts together that saw a token. */
export function statisticsOf(
  { keys }: MatrixInput,
  statistics: ReadonlyMap<InputKey, InputStatistics>,
): InputStatistics {
  const parts = keys.map((key) => statistics.get(key)!);
  return parts.length === 1 ? parts[0] : InputStatistics.merged(parts.filter(({ tokens }) => tokens > 0));
}

/**
 * Divides the input channels of a place by factors and multiplies the columns of all matrices that read it, so that in
 * real numbers nothing changes: a norm's weight, the rows of up_proj or the rows of v_proj take the division, and a router
 * that reads the norm too is multiplied like the matrices.
 * @returns what is known of the place afterwards
 */
export function foldFactors(
  block: DecoderBlock,
  { keys, readers, routers, maker }: MatrixInput,
  factors: Float32Array,
  statistics: ReadonlyMap<InputKey, InputStatistics>,
): [InputKey, InputStatistics][] {
  for (const matrix of readers) {
    matrix.weight = multiplyColumns(matrix.weight, factors);
    matrix.folded = true;
  }
  if ("norm" in maker!) divideNorm(block, maker.norm, factors);
  else {
    const matrix = block.matrices.get(maker!.map.id)!;
    matrix.weight = divideRows(matrix.weight, matrix.cols, factors);
    matrix.folded = true;
    const { bias } = matrix.place.map;
    if (bias !== undefined) changeVector(block, bias, (values) => divideChannels(values, factors));
  }
  for (const { map } of routers) changeVector(block, map.weight, (values) => multiplyColumns(values, factors));
  return keys.map((key) => [key, statistics.get(key)!.dividedBy(factors)]);
}

function divideNorm(block: DecoderBlock, { weight, bias, plusOne }: NormSpec, factors: Float32Array): void {
  const one = plusOne ? 1 : 0;
  changeVector(block, weight, (values) => values.map((value, c) => (one + value) / factors[c] - one));
  if (bias !== undefined) changeVector(block, bias, (values) => divideChannels(values, factors));
}

function changeVector({ vectors }: DecoderBlock, ref: TensorRef, change: (values: Float32Array) => Float32Array): void {
  const vector = vectors.get(ref)!;
  vector.values = change(vector.values);
  vector.folded = true;
}
