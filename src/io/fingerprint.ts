import { breathe, type JobOptions, Stage } from "../core/index.js";
import { byteLengthOf } from "../tensor/index.js";
import type { ByteSource } from "./byteSource.js";
import type { Checkpoint } from "./checkpoint.js";
import { sha256Hex } from "./sha256.js";

/** What tells one model from another. */
export interface Fingerprint {
  configSha256: string;
  /** Over names, types, shapes and all values of all tensors. */
  weightsSha256: string;
}

const pieceBytes = 8 << 20;

/**
 * The same for the same model wherever it lies, another one when a single value differs. Reads every weight once, a piece at a
 * time: some seconds for a model of 14 GB that is in the file cache.
 */
export async function fingerprint(
  checkpoint: Checkpoint,
  { signal, onProgress }: JobOptions = {},
): Promise<Fingerprint> {
  const config = await checkpoint.files.open("config.json");
  const configBytes = await config?.read(0, config.byteLength);
  await config?.close();
  const all = [...checkpoint.tensors.values()];
  const totalBytes = all.reduce((sum, info) => sum + byteLengthOf(info), 0);
  const stage = new Stage("hash the weights", totalBytes, "bytes", onProgress);
  const weights: string[] = [];
  for (const info of all) {
    const { name, dtype, shape } = info;
    weights.push(`${name} ${dtype} ${shape.join("x")}`);
    const total = byteLengthOf(info);
    for (let at = 0; at < total; at += pieceBytes) {
      await breathe(signal);
      const piece = await checkpoint.read(name, at, Math.min(pieceBytes, total - at));
      weights.push(await sha256Hex(piece));
      stage.advance(piece.byteLength, name);
    }
  }
  return {
    configSha256: await sha256Hex(configBytes ?? JSON.stringify(checkpoint.config)),
    weightsSha256: await sha256Hex(weights.join("\n")),
  };
}

/** SHA-256 over the hashes of a file's pieces, so that a file of any size needs one piece of memory. */
export async function hashOfSource(source: ByteSource): Promise<string> {
  const pieces: string[] = [];
  for (let at = 0; at < source.byteLength; at += pieceBytes) {
    pieces.push(await sha256Hex(await source.read(at, Math.min(pieceBytes, source.byteLength - at))));
  }
  return sha256Hex(pieces.join("\n"));
}
