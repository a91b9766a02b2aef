// The little of safetensors that the twins need: BF16 tensors of a Hugging Face directory, read a piece at a time.

import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";

export const readJson = (path) => JSON.parse(readFileSync(path, "utf8"));

/** @returns Map from name to { shape, length (elements), read(start, count): Uint16Array of bf16 bits }. */
export function openCheckpoint(directory) {
  const index = join(directory, "model.safetensors.index.json");
  const names = existsSync(index) ? new Set(Object.values(readJson(index).weight_map)) : ["model.safetensors"];
  const tensors = new Map();
  for (const name of names) {
    const path = join(directory, name);
    const length = Number(readAt(path, 0, 8).readBigUInt64LE());
    const header = JSON.parse(readAt(path, 8, length).toString("utf8"));
    delete header.__metadata__;
    for (const [tensor, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
      if (dtype !== "BF16") throw new Error(`${path}: ${tensor} is ${dtype}; only BF16 checkpoints have twins`);
      tensors.set(tensor, {
        shape,
        length: shape.reduce((a, b) => a * b, 1),
        read(start, count) {
          const bytes = readAt(path, 8 + length + offsets[0] + start * 2, count * 2);
          return new Uint16Array(bytes.buffer, bytes.byteOffset, count);
        },
      });
    }
  }
  return tensors;
}

function readAt(path, position, count) {
  const into = Buffer.from(new ArrayBuffer(count));
  const file = openSync(path, "r");
  try {
    for (let done = 0; done < count; ) {
      const got = readSync(file, into, done, count - done, position + done);
      if (got === 0) throw new Error(`${path}: ends before byte ${position + count}`);
      done += got;
    }
  } finally {
    closeSync(file);
  }
  return into;
}
