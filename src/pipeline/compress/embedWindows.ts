import type { ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { type Checkpoint, checkFinite } from "../../io/index.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";

/** What enters the first block for windows of tokens, f32 [tokens.length, hiddenSize]; every window begins at position 0. */
export async function embedWindows(
  checkpoint: Checkpoint,
  { embedding, hiddenSize }: ModelSpec,
  tokens: Uint32Array,
  window: number,
): Promise<Float32Array> {
  const { table, scale, positions, types, norm } = embedding;
  if (types !== undefined || norm !== undefined) {
    throw new UsageError("embeddings with types or a norm of their own cannot be calibrated with yet");
  }
  const streams = await gatherRows(checkpoint, table.tensor, tokens);
  if (scale !== undefined) {
    const factor = Math.fround(scale);
    for (let i = 0; i < streams.length; i++) streams[i] *= factor;
  }
  if (positions === undefined || streams.length === 0) return streams;
  const rows = Uint32Array.from({ length: window }, (_, p) => p + positions.offset);
  const learned = await gatherRows(checkpoint, positions.table.tensor, rows);
  const windowLength = window * hiddenSize;
  for (let i = 0; i < streams.length; i++) streams[i] += learned[i % windowLength];
  return streams;
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
