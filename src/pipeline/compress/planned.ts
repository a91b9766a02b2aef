import type { GradientStatistic, Recipe, RecipeStage, ResolvedStage, StatisticId } from "../../compress/index.js";
import type { JobOptions } from "../../core/index.js";
import type { Fingerprint } from "../../io/index.js";
import type { BackendInfo, DeviceId } from "../../kernels/index.js";
import type { DecoderDescription } from "../../model/index.js";
import type { TokenizedText } from "../../text/index.js";
import type { GradientSource, TextWindows } from "../gradients.js";
import type { StageHandler } from "./stages/stage.js";
import type { StorageOptions } from "./storeBlock.js";

/** Texts with a class each. */
export interface LabelledTokens {
  /** Tokens of each text. */
  texts: readonly Uint32Array[];
  /** The number of its class. */
  labels: readonly number[];
  /** SHA-256 of the file that they came from, and its name for messages. */
  sha256: string;
  name?: string;
}

/** Recipe, calibration text and machine of a compression. */
export interface CompressOptions extends StorageOptions, JobOptions {
  recipe: Recipe;
  /** Default: none, and then only recipes that look at nothing but weights can run. */
  calibration?: TokenizedText;
  /** Texts with a class each, for masks of a model that classifies; in place of `calibration`. */
  labelled?: LabelledTokens;
  /** Who computes gradients, for recipes that need them. Default: nobody, and those are refused. */
  gradients?: GradientSource;
  /** What runs the calibration windows; solves are done on the CPU. Default "cpu". */
  device?: DeviceId;
  /** A backend by its own name, in place of the device's fastest. */
  backend?: string;
  /** Of the CPU's backends; default: what they choose. */
  threads?: number;
  /** Version of rarefy, for the record. */
  version: string;
  /** Of the model, where it is known; default: all weights are read for it. */
  fingerprint?: Fingerprint;
  /** Called before a block is recorded as finished: throws where the source is no longer what it was. */
  checkSource?(): Promise<void>;
  /** What this machine has left; plans that need more are refused. */
  limits?: { memoryBytes?: number; diskBytes?: number };
}

/** A stage that works on blocks, with what it wants to know of their inputs. */
export interface PlannedStage extends Omit<ResolvedStage, "matrices"> {
  stage: Exclude<RecipeStage, { type: "dropLayers" | "embedding" }>;
  /** Keys of the matrices that it works on. */
  matrices: ReadonlySet<string>;
  /** Place in the recipe. */
  index: number;
  handler: StageHandler;
  /** Of what enters the matrices. Empty: no windows are run through blocks for it. */
  statistics: readonly StatisticId[];
  /** Of the gradients of the loss at the source's weights. */
  gradients: readonly GradientStatistic[];
}

/** Everything a job has decided before it begins. */
export interface CompressionPlan {
  description: DecoderDescription;
  /** How many blocks go, by which rule. */
  drop: (RecipeStage & { type: "dropLayers" }) | undefined;
  stages: readonly PlannedStage[];
  /** What becomes of the embedding. */
  embedding: ResolvedStage | undefined;
  /** Layers of the result. */
  layers: number;
  /** undefined: nothing is measured. */
  windows: TextWindows | undefined;
  /** What runs the windows; undefined like them. */
  backend: BackendInfo | undefined;
  /** SHA-256 over everything that decides the result. */
  job: string;
  configSha256: string;
  estimate: Estimate;
}

/** Whether one of them reads gradients. */
export const differentiates = (stages: readonly Pick<PlannedStage, "gradients">[]): boolean =>
  stages.some(({ gradients }) => gradients.length > 0);

/** Whether one of them masks units by the gradients of all of the model. */
export const masksByGradients = (stages: readonly Pick<PlannedStage, "stage">[]): boolean =>
  stages.some(({ stage }) => stage.type === "maskUnits" && stage.method === "fisher");

/** What a job is expected to take; figures are within a factor of two or so. */
export interface Estimate {
  elapsedMs: number;
  /** The most it holds at a time. */
  memoryBytes: number;
  /** Of the result, while it is written and afterwards; packed results are smaller. */
  diskBytes: number;
}
