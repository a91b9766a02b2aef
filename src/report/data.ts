import * as z from "zod/mini";
import { type ModelSpec, readersOf } from "../arch/index.js";
import { checkSchema } from "../core/internal.js";
import type { ResultRow } from "../eval/index.js";
import {
  type Artifact,
  type CompressedMatrix,
  compressionOf,
  isJsonObject,
  type SiteQuantiles,
  trainingOf,
} from "../io/index.js";
import type { TrainingRecord } from "./curves.js";
import type { MaskPicture } from "./masks.js";

/** One model that was measured or made. */
export interface Candidate {
  name: string;
  /** What was measured; undefined for a model that was only made. */
  row?: ResultRow;
  recipe?: unknown;
  /** Per layer, by the id of the matrix. */
  layers?: readonly { source: number; matrices: Readonly<Record<string, CompressedMatrix>> }[];
  activationSparsity?: Artifact["activationSparsity"];
  activations?: readonly Readonly<Record<string, SiteQuantiles>>[];
  /** The roles of the maps that read at each place where activations were seen. */
  readers?: Readonly<Record<string, readonly string[]>>;
  masks?: readonly MaskPicture[];
  /** Steps of the training it came from. */
  training?: readonly TrainingRecord[];
}

/** Models that were measured in one run, and so may be compared. */
export interface Run {
  /** The directory. */
  location: string;
  /** When what it holds was written, as an ISO date. */
  made?: string;
  /** What the others are compared with: the model before. */
  source?: ResultRow;
  candidates: Candidate[];
  /** Where it was measured, as name and value. */
  environment: readonly (readonly [string, string])[];
}

/** Everything the page shows, as data. */
export interface ReportData {
  rarefyReport: 1;
  runs: Run[];
}

const text = z.string().check(z.maxLength(4096));
const number = z.number();
/** A measured speed; a bare number, as earlier versions wrote it, has no range. */
const speed = z.union([
  z.looseObject({
    median: number.check(z.positive()),
    min: number.check(z.positive()),
    max: number.check(z.positive()),
    samples: number.check(z.positive()),
  }),
  z.pipe(
    number.check(z.positive()),
    z.transform((median) => ({ median, min: median, max: median, samples: 1 })),
  ),
]);
/** A figure of a task. */
const taskRow = z.looseObject({
  task: text,
  metric: text,
  filter: text,
  value: number,
  standardError: z.optional(number),
  higherIsBetter: z.boolean(),
  aggregation: text,
  shots: number,
  documents: number,
  sha256: text,
  values: z.optional(z.string().check(z.maxLength(2 ** 24))),
});
/** What a stored `ResultRow` must be to be read back; other fields pass. */
export const resultRowSchema = z.looseObject({
  model: text,
  weights: text,
  activationSparsity: z._default(number, 0),
  perplexity: z.optional(number.check(z.positive())),
  bytesOnDisk: z.optional(number.check(z.positive())),
  decodeTokensPerSecond: z.optional(speed),
  prefillTokensPerSecond: z.optional(speed),
  bytesPerToken: z.optional(number.check(z.positive())),
  runsAs: z.optional(
    z
      .array(
        z.looseObject({
          structure: text,
          matrices: number,
          share: number,
          zeros: number,
          reasons: z.array(text).check(z.maxLength(64)),
        }),
      )
      .check(z.maxLength(64)),
  ),
  densityStored: z.optional(number),
  elapsedMs: z.optional(number),
  peakMemoryBytes: z.optional(number),
  window: z.optional(number),
  windows: z.optional(number),
  tokens: z.optional(number),
  textSha256: z.optional(text),
  tasks: z.optional(z.array(taskRow).check(z.maxLength(4096))),
  backend: z.optional(text),
  threads: z.optional(number),
});

const matrix = z.looseObject({
  rows: number,
  cols: number,
  sparsity: number,
  nonZeros: number,
  relativeError: z.optional(number),
});
/** What is known of the layers of a compressed model. */
export const compressedLayersSchema = z
  .array(z.looseObject({ source: number, matrices: z.record(text, matrix) }))
  .check(z.maxLength(4096));

const sweepSchema = z.looseObject({
  rarefySweep: z.literal(1),
  model: text,
  machine: z._default(z.record(text, z.union([text, number])), {}),
  entries: z
    .array(
      z.looseObject({
        name: text,
        row: resultRowSchema,
        recipe: z.optional(z.unknown()),
        layers: z.optional(compressedLayersSchema),
      }),
    )
    .check(z.minLength(1), z.maxLength(10_000)),
});

/** A sweep's `sweep.json`: the first entry is the source. @throws FormatError */
export function runOfSweep(raw: unknown, location: string, file: string): Run {
  const sweep = checkSchema(sweepSchema, raw, file);
  const [source, ...entries] = sweep.entries;
  return {
    location,
    source: source.row as ResultRow,
    candidates: entries.map(({ name, row, recipe, layers }) => ({
      name,
      row: row as ResultRow,
      recipe,
      layers: layers as Candidate["layers"],
    })),
    environment: [
      ["model", sweep.model],
      ...Object.entries(sweep.machine).map(([name, value]) => [name, String(value)] as const),
      ...conditions(source.row as ResultRow),
    ],
  };
}

/**
 * A model directory: what its rarefy.json says. The first of two measured rows is the source.
 * @param spec what the model is, which tells the maps whose thresholds apply at a place
 */
export function runOfArtifact(
  artifact: Artifact,
  location: string,
  name: string,
  bytesOnDisk: number,
  spec?: ModelSpec,
): Run {
  const rows = (artifact.results ?? [])
    .filter(isJsonObject)
    .map((row) => checkSchema(resultRowSchema, row, `${location}/rarefy.json`)) as ResultRow[];
  const [source, own] = rows.length > 1 ? rows : [undefined, rows[0]];
  const { activationSparsity, activations } = artifact;
  const compression = compressionOf(artifact);
  return {
    location,
    source,
    candidates: [
      {
        name,
        row: own && { ...own, bytesOnDisk: own.bytesOnDisk ?? bytesOnDisk },
        recipe: compression?.recipe ?? trainingOf(artifact),
        layers: compression?.layers,
        activationSparsity,
        activations,
        ...(spec &&
          activations && { readers: Object.fromEntries(spec.blocks.flatMap((block) => [...readersOf(block)])) }),
      },
    ],
    environment: [
      ...(artifact.source === undefined ? [] : [["model", artifact.source.location] as const]),
      ...(compression === undefined ? [] : [["rarefy", compression.version] as const]),
      ...(own === undefined ? [] : conditions(own)),
    ],
  };
}

/** Under which conventions a row was measured. */
function conditions(row: ResultRow): [string, string][] {
  const { windows, window, tokens, textSha256, backend, threads, weights } = row;
  const facts: [string, string | undefined][] = [
    ["weights", weights],
    [
      "evaluated on",
      windows === undefined
        ? undefined
        : `${windows} window${windows === 1 ? "" : "s"} of ${window} tokens, ${tokens} predicted`,
    ],
    ["text sha256", textSha256],
    ["backend", backend],
    ["threads", threads === undefined ? undefined : String(threads)],
  ];
  return facts.filter((fact): fact is [string, string] => typeof fact[1] === "string");
}
