import * as z from "zod/mini";
import type { ModelSpec } from "../../arch/index.js";
import { FormatError, type JobOptions } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { type Checkpoint, type FileSinks, readSafetensorsHeader } from "../../io/index.js";
import { jsonBytes, writeSafetensorsFile } from "../../io/internal.js";
import { fromFloat32, toFloat32 } from "../../tensor/index.js";
import { offloadedMlp } from "./placement.js";

/** Says what the predictors beside a model are and how good they were found to be. */
export const predictorsDescriptionName = "predictors.json";
/** Their numbers: f32 `layers.N.down` [rank, inputs], `layers.N.up` [neurons, rank], `layers.N.bias` [neurons]. */
export const predictorsWeightsName = "predictors.safetensors";

const share = z.number().check(z.minimum(0), z.maximum(1));
const description = z.strictObject({
  /** Version of this file. */
  predictors: z.literal(1),
  rank: z.int().check(z.minimum(4), z.maximum(65536), z.multipleOf(4)),
  /** What a layer is predicted from: what enters its own MLP, or that of the layer before, so that reading can begin earlier. */
  from: z.enum(["own", "before"]),
  /** Of the text on which they were trained. */
  textSha256: z.string().check(z.regex(/^[0-9a-f]{64}$/, "not 64 lower-case hexadecimal digits")),
  /** Measured on text that they were not trained on. */
  layers: z.array(z.strictObject({ recall: share, precision: share, predictedShare: share })).check(z.maxLength(4096)),
});

/** What `predictors.json` holds. */
export type PredictorsDescription = z.infer<typeof description>;

/** The predictor of a layer: see `NeuronPredictor` of rarefy/compress. */
export interface PredictorWeights {
  readonly rank: number;
  readonly inputs: number;
  readonly neurons: number;
  readonly down: Float32Array;
  readonly up: Float32Array;
  readonly bias: Float32Array;
}

/** Predictors beside a model, in the order of its layers. */
export interface Predictors {
  readonly description: PredictorsDescription;
  readonly layers: readonly PredictorWeights[];
}

const partsOf = ({ rank, inputs, neurons }: Pick<PredictorWeights, "rank" | "inputs" | "neurons">) => ({
  down: [rank, inputs],
  up: [neurons, rank],
  bias: [neurons],
});

/** Writes predictors beside a model. */
export async function writePredictors(
  sinks: FileSinks,
  add: (name: string, bytes: Uint8Array) => Promise<void>,
  predictors: Predictors,
  job: JobOptions = {},
): Promise<void> {
  const tensors = predictors.layers.flatMap((layer, l) =>
    Object.entries(partsOf(layer)).map(([part, shape]) => ({
      name: `layers.${l}.${part}`,
      dtype: "F32" as const,
      shape,
      bytes: () => [fromFloat32("F32", layer[part as "down" | "up" | "bias"])],
    })),
  );
  await writeSafetensorsFile(sinks, predictorsWeightsName, tensors, job);
  await add(predictorsDescriptionName, jsonBytes(description.parse(predictors.description)));
}

/**
 * Reads the predictors beside a model; undefined where there are none.
 * @throws FormatError for files that do not fit the model
 */
export async function readPredictors(
  checkpoint: Pick<Checkpoint, "location" | "files" | "readJson">,
  spec: ModelSpec,
): Promise<Predictors | undefined> {
  const raw = await checkpoint.readJson(predictorsDescriptionName);
  if (raw === undefined) return undefined;
  const file = `${checkpoint.location}/${predictorsDescriptionName}`;
  const hint = "Make them again with rarefy predict";
  const read = checkSchema(description, raw, file, hint);
  const mlps = spec.blocks.map(offloadedMlp);
  if (read.layers.length !== mlps.length) {
    const problem = `predictors of ${read.layers.length} layers`;
    throw new FormatError({ file, field: "layers", problem, expected: `${mlps.length}, as the model has`, hint });
  }
  const source = await checkpoint.files.open(predictorsWeightsName);
  if (source === undefined) {
    throw new FormatError({ file: checkpoint.location, problem: `there is no ${predictorsWeightsName}`, hint });
  }
  try {
    const { tensors } = await readSafetensorsHeader(source);
    const layers: PredictorWeights[] = [];
    for (const [l, mlp] of mlps.entries()) {
      if (mlp === undefined) {
        throw new FormatError({
          file,
          problem: `layer ${l} of the model has no MLP whose neurons could be predicted`,
          hint,
        });
      }
      const shape = { rank: read.rank, inputs: mlp.gate.cols, neurons: mlp.gate.rows };
      const values: Partial<Record<string, Float32Array>> = {};
      for (const [part, wanted] of Object.entries(partsOf(shape))) {
        const name = `layers.${l}.${part}`;
        const found = tensors.get(name);
        if (found === undefined || found.dtype !== "F32" || found.shape.join() !== wanted.join()) {
          const problem = found === undefined ? "it is missing" : `${found.dtype} [${found.shape.join(", ")}]`;
          throw new FormatError({
            file: source.name,
            field: name,
            problem,
            expected: `F32 [${wanted.join(", ")}]`,
            hint,
          });
        }
        const bytes = await source.read(
          found.byteOffset,
          wanted.reduce((a, b) => a * b, 4),
        );
        values[part] = toFloat32("F32", bytes);
        if (!values[part]!.every(Number.isFinite)) {
          throw new FormatError({ file: source.name, field: name, problem: "NaN or infinity among its numbers", hint });
        }
      }
      layers.push({ ...shape, down: values.down!, up: values.up!, bias: values.bias! });
    }
    return { description: read, layers };
  } finally {
    await source.close();
  }
}
