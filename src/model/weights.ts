import type { Step } from "../arch/index.js";
import type { FormatError } from "../core/index.js";
import type { ExpertMatrices, Matrix, Region, RouteOptions, Vector } from "../kernels/index.js";
import type { ExpertRanks } from "./expertRanks/ranks.js";
import type { FactoredTable } from "./factoredTable.js";
import type { ExpertOffload } from "./offload/experts.js";
import type { OffloadedWeights } from "./offload/offloadedWeights.js";
import type { LoadedGates, LoadedPruning, Operation } from "./pass.js";
import type { SplitStack, Stack, WholeStack } from "./stack.js";
import type { MatrixChoice } from "./structure.js";
import type { LoadedSmall } from "./thin/loaded.js";

/** The vectors of a norm on the backend. */
export interface LoadedNorm {
  weight: Vector;
  bias?: Vector;
}

/** A mixture of experts: its router, and the linear steps of all experts together, each by the step of the first. */
export interface LoadedMixture {
  /** [experts rounded up to 4, hiddenSize]; a bias as long. */
  router: WholeStack;
  options: RouteOptions;
  experts: ReadonlyMap<Step, ExpertMatrices>;
  /** Where the others are, if `experts` are the first of them only. */
  ranks?: ExpertRanks;
  /** Where they are read as they are needed: then `experts` is empty. */
  offload?: () => ExpertOffload;
}

/** What makes keys and values of a latent, by head. */
export interface LatentMaps {
  /** [rank, columns of a key that are not rotated]: takes a query to the latent. */
  readonly keys: readonly Matrix[];
  /** [columns of a value, rank] */
  readonly values: readonly Matrix[];
}

/** What the steps of one block need, by step. */
export interface BlockWeights {
  norms: ReadonlyMap<Step, LoadedNorm>;
  stacks: ReadonlyMap<Step, Stack>;
  mixtures: ReadonlyMap<Step, LoadedMixture>;
  /** By the step that makes keys and values of latents. */
  latents: ReadonlyMap<Step, LatentMaps>;
  /** f32 [heads], by the step that attends. */
  sinks: ReadonlyMap<Step, Vector>;
  /** By the step that attends, where it prunes its context. */
  prunings: ReadonlyMap<Step, LoadedPruning>;
  /** By steps whose weights are no linear steps'. */
  small: ReadonlyMap<Step, LoadedSmall>;
  /** By linear steps whose weights are read as they are needed. */
  offloaded: ReadonlyMap<Step, Operation>;
  /** What lets tokens past parts of it. */
  gates?: LoadedGates;
  /** The largest sum of ranks in a stack; 0 without pairs of low rank. */
  lowRank: number;
}

/** All that is loaded of a model. */
export interface ModelWeights {
  /** Where all of it lies. */
  region: Region;
  /** [vocabSize, hiddenSize]; the head's matrix when the two are tied and no factors. */
  embedding: Matrix | FactoredTable;
  /** Learned positions [positions + offset, hiddenSize]. */
  positions?: Matrix;
  embeddingNorm?: LoadedNorm;
  blocks: readonly BlockWeights[];
  finalNorm: LoadedNorm | undefined;
  /** Token types [types, hiddenSize]. */
  types?: Matrix;
  /** The steps of a head before its matrix. */
  headSteps?: BlockWeights;
  /** [logitCols, hiddenSize]; undefined for a model without a head. */
  head: WholeStack | SplitStack | undefined;
  /** What is read as it is needed; undefined where everything was loaded. */
  offload?: OffloadedWeights;
  choices: readonly MatrixChoice[];
  /** See `Model.weightBytes`. */
  bytes: { perToken: number; loaded: number };
  /** See `Model.damage`. */
  damage: FormatError | undefined;
}
