import { FormatError, UsageError } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import { dtypeBytes, type TensorInfo, toFloat32 } from "../tensor/index.js";

/** f32 values that stand in for a tensor of a checkpoint, or add one. */
export interface ReplacedTensor {
  shape: readonly number[];
  values: Float32Array;
}

/** A checkpoint with some tensors replaced by f32 values in memory. Closing it closes nothing. */
export function replaceTensors(checkpoint: Checkpoint, replaced: ReadonlyMap<string, ReplacedTensor>): Checkpoint {
  const tensors = new Map(checkpoint.tensors);
  for (const [name, { shape }] of replaced) tensors.set(name, { name, dtype: "F32", shape });
  return viewOf(checkpoint, checkpoint, tensors, (name) => {
    const found = replaced.get(name);
    return found === undefined ? name : found.values;
  });
}

/** @param locate the name of a stored tensor or values in memory */
function viewOf(
  checkpoint: Checkpoint,
  { config, artifact }: Pick<Checkpoint, "config" | "artifact">,
  tensors: ReadonlyMap<string, TensorInfo>,
  locate: (name: string) => string | Float32Array | undefined,
): Checkpoint {
  const find = (name: string): string | Float32Array => {
    const found = locate(name);
    if (found === undefined)
      throw new FormatError({ file: checkpoint.location, field: name, problem: "no such tensor" });
    return found;
  };
  return {
    location: checkpoint.location,
    files: checkpoint.files,
    config,
    artifact,
    tensors,
    async read(name, byteOffset = 0, byteLength, into) {
      const found = find(name);
      if (typeof found === "string") return checkpoint.read(found, byteOffset, byteLength, into);
      const all = new Uint8Array(found.buffer, found.byteOffset, found.byteLength);
      const bytes = all.subarray(byteOffset, byteOffset + (byteLength ?? all.length - byteOffset));
      into?.set(bytes);
      return into ?? bytes.slice();
    },
    async readFloat32(name) {
      const found = find(name);
      return typeof found === "string" ? checkpoint.readFloat32(found) : found.slice();
    },
    async readScales(name, rowStart, count) {
      const found = find(name);
      if (typeof found !== "string") throw new UsageError(`${name} has no grid`);
      return checkpoint.readScales(found, rowStart, count);
    },
    readJson: (fileName) => checkpoint.readJson(fileName),
    close: async () => {},
  };
}

/** Rows of a stored matrix, widened to f32 [ids.length, cols]; each row is read once. */
export async function gatherRows(checkpoint: Checkpoint, name: string, ids: Uint32Array): Promise<Float32Array> {
  const { dtype, shape } = checkpoint.tensors.get(name)!;
  const cols = shape[1];
  const rowBytes = cols * dtypeBytes[dtype];
  const rows = new Map<number, Float32Array>();
  for (const id of [...new Set(ids)].sort((a, b) => a - b)) {
    rows.set(id, toFloat32(dtype, await checkpoint.read(name, id * rowBytes, rowBytes)));
  }
  const out = new Float32Array(ids.length * cols);
  for (const [i, id] of ids.entries()) out.set(rows.get(id)!, i * cols);
  return out;
}
