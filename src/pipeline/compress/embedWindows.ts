import type { ModelSpec, NormSpec, TensorRef } from "../../arch/index.js";
import type { Checkpoint } from "../../io/index.js";
import { checkFinite } from "../../io/internal.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";

/** What enters the first block for windows of tokens, f32 [tokens.length, hiddenSize]; every window begins at position 0. */
export async function embedWindows(
  checkpoint: Checkpoint,
  { embedding, hiddenSize }: ModelSpec,
  tokens: Uint32Array,
  window: number,
): Promise<Float32Array> {
  const { table, scale, positions, types, norm } = embedding;
  const streams = await gatherRows(checkpoint, table.tensor, tokens);
  if (scale !== undefined) {
    const factor = Math.fround(scale);
    for (let i = 0; i < streams.length; i++) streams[i] *= factor;
  }
  if (positions !== undefined) {
    const rows = Uint32Array.from({ length: window }, (_, p) => p + positions.offset);
    addInTurns(streams, await gatherRows(checkpoint, positions.table.tensor, rows));
  }
  if (types !== undefined) addInTurns(streams, await gatherRows(checkpoint, types.tensor, Uint32Array.of(0)));
  if (norm !== undefined) await normalise(checkpoint, streams, hiddenSize, norm);
  return streams;
}

/** Adds values that begin again where they end. */
function addInTurns(streams: Float32Array, values: Float32Array): void {
  for (let i = 0; i < streams.length; i++) streams[i] += values[i % values.length];
}

async function normalise(checkpoint: Checkpoint, x: Float32Array, cols: number, norm: NormSpec): Promise<void> {
  const { kind, weight, bias, epsilon, plusOne } = norm;
  const read = async ({ tensor }: TensorRef) => {
    const values = await checkpoint.readFloat32(tensor);
    return plusOne ? values.map((value) => 1 + value) : values;
  };
  const scales = await read(weight);
  const shifts = bias && (await checkpoint.readFloat32(bias.tensor));
  for (let start = 0; start < x.length; start += cols) {
    const row = x.subarray(start, start + cols);
    const mean = kind === "layer" ? row.reduce((sum, value) => sum + value, 0) / cols : 0;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / cols;
    const inverse = 1 / Math.sqrt(variance + epsilon);
    for (let i = 0; i < cols; i++) row[i] = (row[i] - mean) * inverse * scales[i] + (shifts?.[i] ?? 0);
  }
}

/** Rows of a stored matrix, widened to f32 [ids.length, cols]; each row is read once. */
async function gatherRows(checkpoint: Checkpoint, name: string, ids: Uint32Array): Promise<Float32Array> {
  const tensor = checkpoint.tensors.get(name)!;
  const { dtype, shape } = tensor;
  const cols = shape[1];
  const rowBytes = cols * dtypeBytes[dtype];
  const rows = new Map<number, Float32Array>();
  for (const id of [...new Set(ids)].sort((a, b) => a - b)) {
    const bytes = await checkpoint.read(name, id * rowBytes, rowBytes);
    checkFinite(checkpoint.location, tensor, bytes, id * cols);
    rows.set(id, toFloat32(dtype, bytes));
  }
  const out = new Float32Array(ids.length * cols);
  for (const [i, id] of ids.entries()) out.set(rows.get(id)!, i * cols);
  return out;
}
