import * as z from "zod/mini";
import type { BlockShape } from "../arch/index.js";
import { tensorDeclaration } from "./encoding/declaration.js";
import { isJsonObject } from "./json.js";

/** The version that is written. */
export const artifactVersion = 2;

const share = z.number().check(z.gte(0), z.lte(1));
const sha256 = z.string().check(z.regex(/^[0-9a-f]{64}$/, "not 64 lower-case hexadecimal digits"));
const count = z.int().check(z.gte(0));
// zod's numbers are finite.
export const cut = z.strictObject({ threshold: z.number().check(z.gte(0)), sparsity: share });

/** What a description calls a linear map of a block. */
const mapId = z.string().check(z.minLength(1), z.maxLength(64));

export const activationSparsity = z.strictObject({
  /** "teal": inputs of all linear maps; "cats": the gate of the MLP. */
  method: z.enum(["teal", "cats"]),
  /** How thresholds come from the calibration histograms. */
  estimator: z.enum(["symmetric", "absQuantile"]),
  /** How the sparsity is spread over the linear maps of a block. */
  allocation: z.enum(["greedy", "uniform"]),
  /** Requested share of zeros, over all linear maps weighted by their size. */
  sparsity: share,
  /** Which part of a prompt runs sparse; decoding always does. */
  prefill: z.union([z.enum(["dense", "secondHalf"]), z.strictObject({ denseFirst: count })]),
  layers: z
    .array(
      z.strictObject({
        /**
         * By the role of the linear map ("q_proj"): inputs with |x| ≤ threshold count as 0; `sparsity` is the share of them
         * expected there. Experts of a mixture share one; a map that is left out is dense.
         */
        maps: z.record(mapId, cut),
        /** CATS: |f(gate)| below the threshold counts as 0. */
        gate: z.optional(cut),
      }),
    )
    .check(z.maxLength(4096)),
  calibration: z.strictObject({
    textSha256: sha256,
    windows: count,
    window: count,
    seed: z.int(),
    /** Each window began with a begin-of-text token. */
    bos: z.optional(z.literal(true)),
  }),
});

/** |x| at the quantiles 0.05, 0.10 … 1 of the activations at one place of one layer, as calibration saw them. */
const siteStatistics = z.strictObject({
  values: count,
  /** Share of exact zeros. */
  zeros: share,
  absQuantiles: z.array(z.number().check(z.gte(0))).check(z.length(20)),
});

// Larger ones would say nothing more.
const weight = z.number().check(z.gte(-1e6), z.lte(1e6));
/** What decides on a token by gap and top; it may leave where w · (gap, top) + bias is above 0. */
const exitLine = z.strictObject({ gap: weight, top: weight, bias: weight });
const layerCount = z.int().check(z.gte(1), z.lte(4096));

/** Early exit: what was trained to tell tokens that may leave behind a layer. */
const exitClassifiers = z.strictObject({
  /** Behind each layer but the last. */
  layers: z
    .array(
      z.strictObject({
        layers: layerCount,
        /** Share of the tokens whose most probable next one was the whole model's there. */
        agreement: share,
        svm: exitLine,
      }),
    )
    .check(z.maxLength(4096)),
  /** A chain over looks behind these layers; transitions from and to 0 (stays) and 1 (may leave). */
  crf: z.optional(
    z.strictObject({
      ...exitLine.shape,
      probed: z.array(layerCount).check(z.minLength(1), z.maxLength(4096)),
      transitions: z.tuple([z.tuple([weight, weight]), z.tuple([weight, weight])]),
    }),
  ),
  calibration: z.strictObject({
    textSha256: sha256,
    windows: count,
    window: count,
    /** Each window began with a begin-of-text token. */
    bos: z.optional(z.literal(true)),
  }),
});

/** Sizes of one decoder block that structured pruning changes. */
const blockShape: z.core.$ZodType<BlockShape> = z.strictObject({
  queryHeads: z.int().check(z.gte(1), z.lte(4096)),
  kvHeads: z.int().check(z.gte(1), z.lte(4096)),
  intermediateSize: z.int().check(z.gte(1), z.lte(2 ** 20)),
  sharedWith: z.optional(z.int().check(z.gte(0), z.lte(4095))),
  contextRank: z.optional(z.int().check(z.gte(4), z.lte(4096))),
  gates: z.optional(
    z.strictObject({
      units: z.enum(["block", "attention", "mlp", "sublayers"]),
      kind: z.enum(["soft", "hard"]),
    }),
  ),
});

/** What one-shot compression made of the matrices of a block. */
export const compressedMatrix = z.strictObject({
  rows: count,
  cols: count,
  /** Share of zeros; of the remainder, where there are factors. */
  sparsity: share,
  /** Numbers stored that are not 0: entries, or those of the factors and of the remainder; of other factors all. */
  nonZeros: count,
  /**
   * √(Σ‖(Ŵ − W)·x‖² / Σ‖W·x‖²) on the calibration inputs at up to 128 evenly spaced outputs; those of several stages added
   * as squares. Absent where there was no calibration text.
   */
  relativeError: z.optional(z.number().check(z.gte(0))),
  /** The expert that it belongs to, in a mixture of experts. */
  expert: z.optional(count),
  /** How many calibration tokens that expert saw. */
  tokens: z.optional(z.int().check(z.gte(0))),
  /** Codes of so many bits, one scale for `groupSize` consecutive entries of a row. */
  bits: z.optional(z.int().check(z.gte(1), z.lte(8))),
  groupSize: z.optional(count),
  /** Factors of this rank take the matrix's place. */
  rank: z.optional(count),
  /** The kind of other factors that do. */
  factors: z.optional(z.string().check(z.maxLength(64))),
});

const timedUnits = z
  .array(z.strictObject({ units: count, milliseconds: z.number().check(z.gte(0)) }))
  .check(z.maxLength(64));
const unitsOfLayers = z.array(count).check(z.maxLength(4096));

/** What masks of heads and neurons came to; by layer of the result where there are lists. */
export const unitMasksRecord = z.strictObject({
  /** Multiply-adds of the heads and neurons that stay, of those of all; without what layers are filled up with. */
  macsShare: share,
  /** Key and value heads, and neurons, whose factor is not 0. */
  heads: unitsOfLayers,
  neurons: unitsOfLayers,
  /** The layers whose factors were tuned, in their order. */
  tuned: z.array(z.string().check(z.maxLength(64))).check(z.maxLength(8192)),
  /** With a budget of time: what a layer of so many units took. */
  latency: z.optional(z.strictObject({ heads: timedUnits, neurons: timedUnits })),
});

/** How a model was trained: the settings of the run and what it came to. */
const training = z.looseObject({
  /** How tokens were sent to experts. */
  router: z.optional(z.string().check(z.maxLength(64))),
});

/** How a model was compressed; the same command gives the same record, so it holds no times. */
export const compression = z.strictObject({
  /** The resolved recipe, JSON. */
  recipe: z.unknown(),
  /** Version of rarefy. */
  version: z.string().check(z.maxLength(64)),
  /** SHA-256 over everything that decides the result: recipe, source, text, storage. */
  job: sha256,
  store: z.enum(["packed", "dense"]),
  calibration: z.optional(
    z.strictObject({
      textSha256: sha256,
      windows: count,
      window: count,
      bos: z.optional(z.literal(true)),
      /** What ran the windows, in words; another device gives sums that differ in their last bits. */
      arithmetic: z.optional(z.string().check(z.maxLength(1024))),
    }),
  ),
  unitMasks: z.optional(unitMasksRecord),
  /** Weights that the blocks' projections had in the source. */
  sourceWeights: count,
  layers: z
    .array(
      z.strictObject({
        /** Layer of the source. */
        source: count,
        /** By id: "q_proj" …, in a mixture of experts "experts.0.gate_proj" … */
        matrices: z.record(mapId, compressedMatrix),
      }),
    )
    .check(z.maxLength(4096)),
  /** The table of tokens, where it was changed; `relativeError` is that of its numbers, √(Σ (ŵ − w)² / Σ w²). */
  embedding: z.optional(compressedMatrix),
});

export const artifactFields = {
  rarefy: z.literal(artifactVersion),
  /** Packed format the model is meant to run in. */
  weights: z.optional(z.enum(["f32", "bf16", "q8", "q4"])),
  activationSparsity: z.optional(activationSparsity),
  /** How it runs, as the flags are written: `--attention`, `--kv`, and `--exits`. */
  inference: z.optional(
    z.strictObject({
      attention: z.optional(z.string().check(z.maxLength(20_000))),
      kv: z.optional(z.string().check(z.maxLength(1024))),
      exits: z.optional(z.string().check(z.maxLength(1024))),
    }),
  ),
  exits: z.optional(exitClassifiers),
  /** What the thresholds were read from: one record per layer, by place ("attentionInput" …). */
  activations: z.optional(
    z.array(z.record(z.string().check(z.maxLength(64)), siteStatistics)).check(z.maxLength(4096)),
  ),
  /** Matrices that do not lie in the file as plain values, by the name a model knows them by. */
  tensors: z.optional(z.record(z.string(), tensorDeclaration)),
  /** One entry per layer, when blocks differ from each other (structured pruning). */
  blocks: z.optional(z.array(blockShape).check(z.maxLength(4096))),
  /** What made the weights. */
  origin: z.optional(z.union([z.strictObject({ compression }), z.strictObject({ training })])),
  /** Measured result rows, JSON objects. */
  results: z.optional(z.array(z.custom<Record<string, unknown>>(isJsonObject, "not a JSON object"))),
  /** The model it was made from: directory or Hub id, and the hash of its config.json. */
  source: z.optional(z.strictObject({ location: z.string(), configSha256: sha256 })),
};

export const artifactSchema = z.strictObject(artifactFields);

/** `activationSparsity` of rarefy.json: thresholds of every layer, how they were found and what they run as. */
export type ActivationSparsity = z.infer<typeof activationSparsity>;
/** `exits` of rarefy.json: what tells whether a token may leave behind a layer. */
export type ExitClassifiers = z.infer<typeof exitClassifiers>;
/** Quantiles of the activations seen at one place of a layer. */
export type SiteQuantiles = z.infer<typeof siteStatistics>;
/** `compression` of rarefy.json: the job that made the model and what it did to every matrix. */
export type Compression = z.infer<typeof compression>;
/** What masks of heads and neurons came to. */
export type UnitMasksRecord = z.infer<typeof unitMasksRecord>;
/** What compression did to one matrix: zeros, bits, rank, error. */
export type CompressedMatrix = z.infer<typeof compressedMatrix>;
/** rarefy.json: how a model was made sparse, and all that is needed to run it so. */
export type Artifact = z.infer<typeof artifactSchema>;

/** How the model was compressed, if that is what made it. */
export const compressionOf = ({ origin }: Artifact): Compression | undefined =>
  origin !== undefined && "compression" in origin ? origin.compression : undefined;

/** How the model was trained, if that is what made it. */
export const trainingOf = ({ origin }: Artifact): Readonly<z.infer<typeof training>> | undefined =>
  origin !== undefined && "training" in origin ? origin.training : undefined;
