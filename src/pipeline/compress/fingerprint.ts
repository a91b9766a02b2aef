import { type Checkpoint, sha256Hex } from "../../io/index.js";
import { byteLengthOf } from "../../tensor/index.js";

/** What tells one model from another. */
export interface Fingerprint {
  configSha256: string;
  /** Over names, types, shapes and samples of the values of all tensors. */
  weightsSha256: string;
}

/** Large models are not read whole: of every tensor so many bytes at so many evenly spaced places, and small ones whole. */
const sampleBytes = 4096;
const samples = 8;

/** The same for the same model wherever it lies; another one for weights that were trained on, pruned or replaced. */
export async function fingerprint(checkpoint: Checkpoint): Promise<Fingerprint> {
  const config = await checkpoint.files.open("config.json");
  const configBytes = await config?.read(0, config.byteLength);
  await config?.close();
  const weights: string[] = [];
  for (const info of checkpoint.tensors.values()) {
    const { name, dtype, shape } = info;
    weights.push(`${name} ${dtype} ${shape.join("x")}`);
    for (const [start, length] of placesIn(byteLengthOf(info))) {
      weights.push(await sha256Hex(await checkpoint.read(name, start, length)));
    }
  }
  return {
    configSha256: await sha256Hex(configBytes ?? JSON.stringify(checkpoint.config)),
    weightsSha256: await sha256Hex(weights.join("\n")),
  };
}

function placesIn(byteLength: number): (readonly [start: number, length: number])[] {
  if (byteLength <= sampleBytes * samples) return [[0, byteLength]];
  const stride = (byteLength - sampleBytes) / (samples - 1);
  return Array.from({ length: samples }, (_, i) => [Math.floor(i * stride), sampleBytes]);
}
