import { compressionOf, ModelStore, openCheckpoint } from "rarefy/io";
import { describeDecoder } from "rarefy/model";
import { drawMask, masksToDraw, type Run, reportPage, runOfArtifact } from "rarefy/report";
import { weightBytes } from "./weightBytes.js";

/** The library's report of a model of the store, as `rarefy report` writes it. */
export async function report(location: string): Promise<string> {
  const store = await ModelStore.open();
  const files = await store.files(location);
  const checkpoint = await openCheckpoint(files);
  try {
    const { artifact } = checkpoint;
    if (artifact === undefined)
      throw new Error(`nothing has been done to ${location} yet; prune, quantise or calibrate it first`);
    const { config } = await describeDecoder(checkpoint);
    const run: Run = runOfArtifact(artifact, location, location, weightBytes(files.sizes), config.spec);
    const matrices = compressionOf(artifact)?.layers.flatMap((layer) => Object.values(layer.matrices)) ?? [];
    if (matrices.some(({ sparsity }) => sparsity > 0)) {
      const masks = [];
      for (const name of masksToDraw(checkpoint, config.spec)) masks.push(await drawMask(checkpoint, name));
      run.candidates[0].masks = masks;
    }
    return await reportPage({ rarefyReport: 1, runs: [run] });
  } finally {
    await checkpoint.close();
  }
}
