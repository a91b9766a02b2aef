import { parseChoice } from "../parameters.js";
import { full } from "./full.js";
import { h2o } from "./h2o.js";
import type { KvEviction, KvPolicy } from "./policy.js";
import { random } from "./random.js";
import { recent } from "./recent.js";
import { sinks } from "./sinks.js";

/** All KV policies by the name that a text chooses them with. */
export const kvPolicies: Readonly<Record<string, KvPolicy>> = { full, recent, sinks, h2o, random };

/** A KV policy with its parameters. Any number of sequences share one. */
export interface KvChoice {
  /** As it was written: `h2o:budget=128`. */
  readonly text: string;
  /** Undefined: everything is kept. */
  readonly eviction: KvEviction | undefined;
}

/**
 * Reads a KV policy: `h2o:budget=128`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseKv(text: string): KvChoice {
  const { entry, values } = parseChoice("a KV policy", kvPolicies, text);
  return { text, eviction: entry.make(values as never) };
}
