import { type Checkpoint, checkFinite } from "../../io/index.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";

/** Rows of a stored matrix, widened to f32 [ids.length, cols]; each row is read once. */
export async function gatherRows(checkpoint: Checkpoint, name: string, ids: Uint32Array): Promise<Float32Array> {
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
