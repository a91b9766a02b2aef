import { parseRecipe } from "../../compress/index.js";
import type { JobOptions } from "../../core/index.js";
import { type Checkpoint, memoryFiles, openCheckpoint } from "../../io/index.js";
import { memoryWorkspace, planCompression, runCompression } from "../../pipeline/index.js";
import type { TokenizedText } from "../../text/index.js";
import { readWeights } from "../languageModel.js";
import type { ModelParameter } from "../models/parameters.js";
import type { FloatArray } from "../values.js";

export interface PruneSettings {
  method: string;
  calibration: TokenizedText;
  windows: number;
  /** Tokens of a window. */
  window: number;
}

/** Weights of a decoder after one-shot pruning to 2:4 in memory, as f32; zeros are exact. */
export async function prunedWeights(
  checkpoint: Checkpoint,
  parameters: readonly ModelParameter[],
  { method, calibration, windows, window }: PruneSettings,
  { signal }: JobOptions,
): Promise<Map<string, FloatArray>> {
  const pattern = { type: "nm", keep: 2, group: 4 };
  const recipe = parseRecipe(
    { version: 1, calibration: { windows, window }, stages: [{ type: "prune", method, pattern }] },
    "one-shot pruning",
  );
  const options = { recipe, calibration, store: "dense", dtype: "F32", version: "experiment", signal } as const;
  const plan = await planCompression(checkpoint, options);
  const files = new Map<string, Uint8Array>();
  await runCompression(checkpoint, plan, { workspace: memoryWorkspace(files), companions: [] }, options);
  const pruned = await openCheckpoint(memoryFiles("pruned", files));
  try {
    return await readWeights(pruned, parameters, { signal });
  } finally {
    await pruned.close();
  }
}
