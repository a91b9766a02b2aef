import { type ModelSpec, tensorsOf } from "../../arch/index.js";
import { FormatError, UsageError } from "../../core/index.js";
import type { Checkpoint, TensorToWrite } from "../../io/index.js";
import { byteLengthOf, dtypeBytes } from "../../tensor/index.js";
import { type NarrowModel, streamAxes } from "./narrow.js";

/**
 * The tensors of a model with fewer channels, which read from the source when they are written, value by value as they are there.
 * @param kept channels of the source that stay, ascending
 * @throws UsageError for weights that are stored as codes or factors, FormatError for a tensor that is missing
 */
export function cutChannels(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  narrow: NarrowModel,
  kept: readonly number[],
): TensorToWrite[] {
  const { artifact, location, tensors } = checkpoint;
  if (Object.keys(artifact?.tensors ?? {}).length > 0) {
    throw new UsageError(`${location} is compressed already: leave out channels of the plain model first`);
  }
  const shapes = tensorsOf(narrow.spec);
  return tensorsOf(spec).map(({ name, shape }, t) => {
    const info = tensors.get(name);
    if (info === undefined) throw new FormatError({ file: location, field: name, problem: "the tensor is missing" });
    const axes = streamAxes(shape, shapes[t].shape);
    const { dtype } = info;
    return {
      name,
      dtype,
      shape: shapes[t].shape,
      bytes: () => cutTensor(checkpoint, name, shape, axes, kept),
    };
  });
}

const pieceBytes = 4 << 20;

/** Pieces of whole entries of the first axis, those of them and of the others that stay. */
async function* cutTensor(
  checkpoint: Checkpoint,
  name: string,
  shape: readonly number[],
  axes: readonly number[],
  kept: readonly number[],
): AsyncGenerator<Uint8Array> {
  const { dtype } = checkpoint.tensors.get(name)!;
  const [count, ...inner] = shape;
  const entryBytes = byteLengthOf({ dtype, shape: inner });
  const entries = axes.includes(0) ? kept : Array.from({ length: count }, (_, entry) => entry);
  const within = elementsOf(inner, axes, kept);
  const size = dtypeBytes[dtype];
  const together = Math.max(1, Math.floor(pieceBytes / entryBytes));
  for (let first = 0; first < entries.length; first += together) {
    const piece = entries.slice(first, first + together);
    const [from, to] = [piece[0], piece[piece.length - 1] + 1];
    const source = await checkpoint.read(name, from * entryBytes, (to - from) * entryBytes);
    const out = new Uint8Array(piece.length * within.length * size);
    let at = 0;
    for (const entry of piece) {
      for (const element of within) {
        const start = (entry - from) * entryBytes + element * size;
        for (let b = 0; b < size; b++) out[at++] = source[start + b];
      }
    }
    yield out;
  }
}

/** Row-major positions, within an entry of the first axis, of what stays. */
function elementsOf(inner: readonly number[], axes: readonly number[], kept: readonly number[]): number[] {
  let positions = [0];
  for (const [a, size] of inner.entries()) {
    const stay = axes.includes(a + 1) ? kept : Array.from({ length: size }, (_, i) => i);
    positions = positions.flatMap((position) => stay.map((i) => position * size + i));
  }
  return positions;
}
