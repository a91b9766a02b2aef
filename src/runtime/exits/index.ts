import { UsageError } from "../../core/index.js";
import type { ExitClassifiers } from "../../io/index.js";
import { parseChoice } from "../parameters.js";
import { crf } from "./crf.js";
import { gap, never, top } from "./limits.js";
import type { ExitDecider, ExitRule } from "./rule.js";
import { svm } from "./svm.js";

export type { ExitDecider, ExitFeatures, ExitRule } from "./rule.js";

/** All rules by which tokens leave early, by the name that a text chooses them with. */
export const exitRules: Readonly<Record<string, ExitRule>> = { never, top, gap, svm, crf };

/** Early exit with its parameters. Any number of sequences share one. */
export interface Exits {
  /** As it was written: `top:least=0.9,from=4`. */
  readonly text: string;
  /** What becomes of the layers left out: keys and values as the whole model has them, or made of the state at the exit. */
  readonly fill: "exact" | "propagate";
  /** Behind how many layers of `layers` is looked, ascending. @throws UsageError where that is behind none */
  probed(layers: number): number[];
  /**
   * What looks at a token of a model with so many layers; called anew for every token.
   * @throws UsageError where nothing was trained, or for other layers
   */
  open(layers: number): () => ExitDecider;
}

/**
 * Reads a rule of early exit: `top:least=0.9,from=4`.
 * @param trained what `rarefy exits` found for the model, where the rule is svm or crf
 * @throws UsageError naming what is wrong and what there is
 */
export function parseExits(text: string, trained?: ExitClassifiers): Exits {
  const { entry, values } = parseChoice("a rule of early exit", exitRules, text);
  const probed = (layers: number) => (entry === never ? [] : probedLayers(layers, values as unknown as Schedule));
  return {
    text,
    fill: values.fill as Exits["fill"],
    probed,
    open: (layers) => entry.open(values as never, probed(layers), trained),
  };
}

interface Schedule {
  from: number;
  every: number;
}

/**
 * Behind how many layers is looked: `from`, and every `every` layers from there, never behind the last.
 * @throws UsageError where there are none
 */
export function probedLayers(layers: number, { from: asked, every: step }: Schedule): number[] {
  const from = asked || Math.max(1, Math.round(layers / 4));
  const every = step || Math.max(1, Math.round(layers / 8));
  if (from >= layers) {
    throw new UsageError(`looks from layer ${from} on; the model has ${layers}, so take one from 1 to ${layers - 1}`);
  }
  const probed: number[] = [];
  for (let at = from; at < layers; at += every) probed.push(at);
  return probed;
}
