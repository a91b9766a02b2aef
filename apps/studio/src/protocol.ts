import type { ProgressEvent } from "rarefy/core";
import type { ResultRow } from "rarefy/eval";
import type { GgufTypeId, StoredModel } from "rarefy/io";
import type { DeviceId } from "rarefy/kernels";
import type { WeightFormatId } from "rarefy/pack";
import type { FinishReason, SamplingOptions } from "rarefy/runtime";
import type { ChatMessage } from "rarefy/text";

/** What the page may ask of the worker that keeps and runs models: argument and result of every call. */
export type ModelCalls = {
  machine: [undefined, Machine];
  list: [undefined, StoredModel[]];
  store: [ModelSource, StoredModel];
  remove: [string, undefined];
  /** Removes the files of exports that the browser must have saved by now. */
  removeSaved: [undefined, undefined];
  open: [OpenRequest, OpenedModel];
  /** Closes all models but these. */
  keep: [readonly string[], undefined];
  chat: [ChatRequest, Answer[]];
  inspect: [InspectRequest, Inspection];
};

/** What it may ask of a workshop: a worker that is started for one job and ends with it. */
export type WorkshopCalls = {
  compress: [CompressRequest, Compressed];
  /** @returns the page as HTML */
  report: [string, string];
  /** @returns the file to save; undefined where it was written into a folder */
  export: [ExportRequest, File | undefined];
};

/** What a worker says while a call runs. */
export type StudioEvent = ({ type: "progress" } & ProgressEvent) | WrittenToken | Picture;

export interface Machine {
  /** Description of the GPU, or why there is none to use. */
  gpu: { usable: boolean; detail: string };
  /** Logical processors that WebAssembly may use; 1 where the page may not share memory. */
  threads: number;
  isolated: boolean;
  storage: { usedBytes?: number; quotaBytes?: number };
}

/** A directory or a GGUF file by URL, or the files of a folder that was chosen. */
export type ModelSource = { url: string } | { folder: string; files: readonly File[] };

// --- models that write ---------------------------------------------------------------------------------------------------

/** Shares of inputs to skip that the page offers; thresholds for all are found at once. */
export const shares = [0.25, 0.4, 0.5, 0.65] as const;

/** How much of its inputs a model skips: nothing, what its rarefy.json says, or a share. */
export type Skipping = "dense" | "own" | (typeof shares)[number];

export interface OpenRequest {
  location: string;
  device: DeviceId;
  /** Default: what rarefy.json names, else bf16. */
  weights?: WeightFormatId;
  /** Where the page's own files lie; the calibration text is among them. */
  base: string;
}

export interface OpenedModel {
  location: string;
  backend: string;
  weights: WeightFormatId;
  layers: number;
  maxPositions: number;
  /** Weights read per dense token. */
  bytesPerToken: number;
  /** Share of inputs of rarefy.json; undefined without one. */
  ownShare?: number;
  /** Whether it has a chat template; without one it goes on with a text. */
  chats: boolean;
  /** Whether it stops where its template ends a turn, as models do that were trained to answer. */
  endsTurns: boolean;
  /** How its makers sample from it. */
  sampling: Omit<SamplingOptions, "seed">;
}

/** What is compared: a model that skips so much. */
export interface Variant {
  location: string;
  skipping: Skipping;
}

export interface ChatRequest {
  /** They write next to each other, a token each in turn. */
  variants: readonly (Variant & {
    /** The chat so far, for its template; or the text to go on with. */
    prompt: readonly ChatMessage[] | string;
  })[];
  maxTokens: number;
  sampling: SamplingOptions;
}

/** What has been counted of a variant so far. */
export interface Counts {
  /** Over the tokens so far, without the first two and those that were watched; undefined until there are some. */
  tokensPerSecond?: number;
  /** Weights read per token, as counted by the backend; undefined for a single token. */
  bytesPerToken?: number;
  /** Share of the inputs of block products, as counted. */
  skipped: number;
  /** Layers behind which its tokens left, on average; undefined where none may leave early. */
  meanExitLayer?: number;
}

export interface WrittenToken extends Counts {
  type: "token";
  /** Place of its variant. */
  variant: number;
  id: number;
  text: string;
}

export interface Answer extends Counts {
  tokenIds: number[];
  text: string;
  finish: FinishReason | "stopped";
}

/** Inputs of one token that passed their thresholds. */
export interface Picture {
  type: "picture";
  /** The roles of the linear maps of a block. */
  maps: readonly string[];
  layers: number;
  /** Neighbouring inputs are counted together. */
  bins: number;
  /** Share kept, 0 … 255: [layers][maps][bins]. */
  kept: Uint8Array;
}

export interface InspectRequest extends Variant {
  text: string;
}

/** What a text does inside of a model. */
export interface Inspection {
  /** Its tokens as text. */
  tokens: string[];
  /** By layer, for every key head: the share of its attention that each token was given, [heads, tokens]. */
  attention: { heads: number; shares: Float32Array }[];
  /** The roles of the linear maps of a block, and by layer which share of their inputs was skipped. */
  maps: readonly string[];
  skipped: (number | undefined)[][];
  /** By layer with experts, which share of its places each got; empty for models without. */
  experts: { layer: number; loads: number[] }[];
}

// --- models that are made ------------------------------------------------------------------------------------------------

/** A text of the page's own, or a file that was chosen. */
export type TextSource = { url: string } | { file: File };

export interface CompressRequest {
  location: string;
  /** Of the result. */
  name: string;
  /** What to do: a recipe as text (YAML or JSON), or the share of inputs that TEAL's thresholds are to skip. */
  work: { recipe: string } | { skip: number };
  calibration?: TextSource;
  window: number;
  windows: number;
  /** Source and result are measured on it; left out: nothing is measured. */
  evaluation?: { text: TextSource; windows: number };
  device: DeviceId;
}

export interface Compressed {
  location: string;
  /** Of the source and of the result, measured in one run. */
  before?: ResultRow;
  after: ResultRow;
}

export interface ExportRequest {
  location: string;
  /** Of the file or folder. */
  name: string;
  /** The model's files in one archive, the same files in a folder, or one GGUF file. */
  form: { zip: true } | { folder: FileSystemDirectoryHandle } | { gguf: GgufTypeId };
}
