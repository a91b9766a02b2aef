import type { ActivationFunction } from "../core/index.js";
import type { ModelConfig } from "./modelSizes.js";

/** What a file says, by keys without their architecture. */
export interface GgufKeys {
  number(key: string): number | undefined;
  /** @throws FormatError where the key is missing */
  required(key: string): number;
  flag(key: string): boolean | undefined;
  headDim: number;
}

/**
 * A tensor of the checkpoint that files have in several: of every unit, an expert or a head, some rows in each. Of experts,
 * [units, cols, rows] with the rows of the parts in turns, the parts are [units, rows, cols]; a bias has no columns. Of heads,
 * [units · rows, cols] with the rows of a unit one behind the other, the first part is turned, [units, cols, rows].
 */
export interface JoinedTensor {
  units: "experts" | "heads";
  /** Behind the number of the block, in the checkpoint. */
  tensor: string;
  /** Behind `blk.N.` */
  parts: readonly string[];
  /** Of heads: how many there are, and the rows of each part. */
  sizes?(config: ModelConfig): { heads: number; rows: readonly number[] };
}

/** How files of llama.cpp name a family and its tensors. */
export interface GgufFamily {
  /** `general.architecture`. */
  architecture: string;
  /** Of two families with one architecture, this one has files with a sliding window. */
  windowed?: true;
  /** llama.cpp computes its sliding windows. Of other families with windows, files say that a text ends where the window does. */
  ownWindows?: true;
  /** Rows of q and k of a head are in the order of neighbours, (2i, 2i + 1), where the checkpoint rotates halves. */
  rotaryNeighbours?: true;
  /** The weights of norms are 1 + those of the checkpoint (Gemma). */
  plusOneNorms?: true;
  /** Matrices are [rows, cols], where the checkpoint has [cols, rows]: by the ends of their names in the file. */
  turned?: readonly string[];
  /**
   * Maps that share a tensor lie one behind the other, where those of each head lie together in the checkpoint: the end of
   * its name in the file, and how many they are.
   */
  perHead?: { end: string; maps: number };
  /**
   * Its MLPs are mixtures. A file has the maps of all experts of a block in one tensor, [experts, rows, cols]: what it calls that
   * tensor, and the map of one expert behind `module` + `.N.`
   */
  experts?: { module: string; maps: readonly (readonly [string, string])[] };
  /** Tensors of blocks that lie otherwise in files, where a checkpoint has one for all experts, or one for keys and values. */
  joined?: readonly JoinedTensor[];
  /** Fields of a scaled rotary embedding that files leave out and llama.cpp has its own numbers for. */
  ropeScaling?: { truncate: false };
  /** Heads attend over latents: what files say of their widths is of latents, and stretched positions weigh scores by a key of their own. */
  latent?: true;
  /** Every position sees all others: files say that their attention is not causal. */
  encoder?: true;
  /** Tensors that files leave out, since llama.cpp makes vectors without them. */
  leftOut?: readonly string[];
  /** What llama.cpp computes it with. Default "silu". */
  activation?: ActivationFunction;
  /** Fields of config.json that only this family has. */
  config?(keys: GgufKeys): Record<string, unknown>;
  /** Whether `config` gives all fields but those of tokens, under names that Llama's relatives do not have. */
  ownFields?: true;
  /** Keys that only files of this family have: f32 and flags, and whole numbers. */
  keys?(config: ModelConfig): Readonly<Record<string, number | boolean | undefined>>;
  counts?(config: ModelConfig): Readonly<Record<string, number | undefined>>;
  /** Why llama.cpp would compute another model than this one; undefined where it would not. */
  problem?(config: ModelConfig): string | undefined;
  /** Has no key of its own for biases of attention, which the config tells of. */
  optionalAttentionBias?: true;
  /**
   * Stems of tensors in both spellings, [GGUF, Hugging Face]; what ends them is `.weight` or `.bias` in both. Where the first has
   * its end, the second is a whole name.
   */
  names: {
    outside: readonly (readonly [string, string])[];
    /** Behind `blk.N.` and behind `layers` + `.N.` */
    inBlock: readonly (readonly [string, string])[];
    /** What stands before the number of a block in the checkpoint: "model.layers". */
    layers: string;
  };
}
