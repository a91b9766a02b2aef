import { parseChoice } from "../parameters.js";
import { full } from "./full.js";
import { h2o } from "./h2o.js";
import { int4 } from "./int4.js";
import { int8 } from "./int8.js";
import { kivi } from "./kivi.js";
import { inBits, type KvBits, type KvEviction, type KvPolicy } from "./policy.js";
import { pruned } from "./pruned.js";
import { pyramidkv } from "./pyramidkv.js";
import { random } from "./random.js";
import { recent } from "./recent.js";
import { sinks } from "./sinks.js";
import { snapkv } from "./snapkv.js";

/** All KV policies by the name that a text chooses them with. */
export const kvPolicies: Readonly<Record<string, KvPolicy>> = {
  full,
  int8,
  int4,
  kivi,
  recent: inBits(recent),
  sinks: inBits(sinks),
  h2o: inBits(h2o),
  random: inBits(random),
  snapkv: inBits(snapkv),
  pyramidkv: inBits(pyramidkv),
  pruned,
};

/** A KV policy with its parameters. Any number of sequences share one. */
export interface KvChoice {
  /** As it was written: `h2o:budget=128`. */
  readonly text: string;
  /** Undefined: everything is kept. */
  readonly eviction: KvEviction | undefined;
  /** Undefined: f32. */
  readonly codes?: KvBits;
}

/**
 * Reads a KV policy: `h2o:budget=128`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseKv(text: string): KvChoice {
  const { entry, values } = parseChoice("a KV policy", kvPolicies, text);
  return { text, eviction: entry.make(values as never), codes: entry.codes?.(values as never) };
}
