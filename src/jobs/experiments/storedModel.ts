import { stat } from "node:fs/promises";
import { breathe, type JobOptions } from "../../core/index.js";
import { type LocalModelFiles, openCheckpoint } from "../../io/index.js";

/** Bytes of the files that hold a model's weights. */
export async function storedBytes(files: LocalModelFiles): Promise<number> {
  const names = (await files.names()).filter((name) => /\.(safetensors|gguf)$/.test(name));
  const sizes = await Promise.all(names.map(async (name) => (await stat(files.pathOf(name)!)).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** What has become of the numbers of a model: shares of all there were. */
export interface Touched {
  /** Other than before, but there. */
  changed: number;
  /** 0 that were not. */
  zeroed: number;
  /** In tensors that are no longer there. */
  gone: number;
}

export async function touched(before: LocalModelFiles, after: LocalModelFiles, job: JobOptions): Promise<Touched> {
  const [source, result] = await Promise.all([openCheckpoint(before), openCheckpoint(after)]);
  try {
    const count = { all: 0, changed: 0, zeroed: 0, gone: 0 };
    for (const { name, shape } of source.tensors.values()) {
      await breathe(job.signal);
      const values = await source.readFloat32(name);
      count.all += values.length;
      const there = result.tensors.get(name);
      if (there === undefined || there.shape.join() !== shape.join()) {
        count.gone += values.length;
        continue;
      }
      const now = await result.readFloat32(name);
      for (let i = 0; i < values.length; i++) {
        if (now[i] === values[i]) continue;
        if (now[i] === 0) count.zeroed++;
        else count.changed++;
      }
    }
    const { all, changed, zeroed, gone } = count;
    return { changed: changed / all, zeroed: zeroed / all, gone: gone / all };
  } finally {
    await Promise.all([source.close(), result.close()]);
  }
}
