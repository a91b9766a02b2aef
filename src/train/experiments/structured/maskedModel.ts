import { parseRecipe } from "../../../compress/index.js";
import type { JobOptions } from "../../../core/index.js";
import { type Checkpoint, compressionOf, memoryFiles, openCheckpoint } from "../../../io/index.js";
import {
  type BlockUnitGradients,
  type GradientSource,
  memoryWorkspace,
  planCompression,
  runCompression,
} from "../../../pipeline/index.js";
import type { State } from "../../state.js";
import type { FloatArray } from "../../values.js";
import type { Subject } from "./subject.js";

/** A model without some of its units, in memory. */
export interface MaskedModel extends AsyncDisposable {
  checkpoint: Checkpoint;
  /** Share of the multiply-adds of all heads and neurons that stays. */
  macsShare: number;
  /** By layer. */
  heads: readonly number[];
  neurons: readonly number[];
}

/** Makes a checkpoint smaller by one stage of masks, in memory, as f32. @param stage without its type */
export async function maskedModel(
  { protocol, calibration, tokens }: Subject,
  checkpoint: Checkpoint,
  stage: Readonly<Record<string, unknown>>,
  gradients: GradientSource,
  job: JobOptions,
): Promise<MaskedModel> {
  const { windows, window } = protocol.calibration;
  const isFisher = stage.method === "fisher";
  const recipe = parseRecipe(
    {
      version: 1,
      calibration: { windows, window, measureError: false },
      stages: [{ type: "maskUnits", tokens, batch: protocol.together, ...stage }],
    },
    "masks",
  );
  const options = {
    ...job,
    recipe,
    gradients,
    ...(isFisher && calibration),
    store: "dense",
    dtype: "F32",
    version: "experiment",
    threads: 1,
  } as const;
  const plan = await planCompression(checkpoint, options);
  const files = new Map<string, Uint8Array>();
  const { artifact } = await runCompression(
    checkpoint,
    plan,
    { workspace: memoryWorkspace(files), companions: [] },
    options,
  );
  const smaller = await openCheckpoint(memoryFiles("masked", files));
  const { macsShare, heads, neurons } = compressionOf(artifact)!.unitMasks!;
  return { checkpoint: smaller, macsShare, heads, neurons, [Symbol.asyncDispose]: () => smaller.close() };
}

/** Gradients that are computed once, and found in the state of a cell that goes on. */
export function rememberedGradients(
  source: GradientSource,
  stored: State | undefined,
  keep: (state: State) => Promise<void>,
): GradientSource {
  let known = stored && blocksIn(stored);
  return {
    ...source,
    async *unitGradients(...asked) {
      if (known === undefined) {
        known = [];
        for await (const block of source.unitGradients(...asked)) known.push(block);
        await keep(Object.fromEntries(known.map(({ layer, ...kinds }) => [String(layer), stateOfKinds(kinds)])));
      }
      yield* known;
    },
  };
}

const kinds = ["heads", "neurons"] as const;

const stateOfKinds = (of: Omit<BlockUnitGradients, "layer">): State =>
  Object.fromEntries(kinds.map((kind) => [kind, { ...of[kind] }]));

function blocksIn(stored: State): BlockUnitGradients[] {
  return Object.entries(stored).map(([layer, of]) => {
    const read = (kind: (typeof kinds)[number]) => {
      const { values, batches, units } = (of as State)[kind] as State;
      return { values: Float64Array.from(values as FloatArray), batches: batches as number, units: units as number };
    };
    return { layer: Number(layer), heads: read("heads"), neurons: read("neurons") };
  });
}
