import type { ProgressEvent } from "rarefy/core";
import type { StoredModel } from "rarefy/io";
import type { DeviceId } from "rarefy/kernels";
import type { WeightFormatId } from "rarefy/pack";

/** Shares of inputs to skip that the page offers; thresholds for all are found at once. */
export const sparsities = [0.25, 0.4, 0.5, 0.65] as const;

/** What the page may ask of its worker: arguments and result of every call. */
export interface Calls {
  machine: [undefined, Machine];
  list: [undefined, StoredModel[]];
  store: [ModelSource, StoredModel];
  remove: [string, undefined];
  open: [OpenRequest, OpenedModel];
  compare: [CompareRequest, Record<Side, Generated>];
}

/** What the worker says while a call runs. */
export type StudioEvent = ({ type: "progress" } & ProgressEvent) | GeneratedToken | Picture;

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
  /** Weights read per dense token. */
  bytesPerToken: number;
  /** Sparsity of rarefy.json; undefined without one. */
  ownSparsity?: number;
}

/** The two that write next to each other, a token each in turn. */
export const sides = ["dense", "sparse"] as const;
export type Side = (typeof sides)[number];

export interface CompareRequest {
  prompt: string;
  maxTokens: number;
  temperature: number;
  /** Of the sparse side; "own" is what rarefy.json says. */
  sparsity: (typeof sparsities)[number] | "own";
}

export interface GeneratedToken {
  type: "token";
  side: Side;
  id: number;
  text: string;
  /** Over the tokens so far, without the first two and those that were watched; undefined until there are some. */
  tokensPerSecond?: number;
}

export interface Generated {
  tokenIds: number[];
  tokensPerSecond?: number;
  /** Weights read per token, as counted by the backend; undefined for a single token. */
  bytesPerToken?: number;
  /** Share of the inputs of block products, as counted. */
  skipped: number;
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
