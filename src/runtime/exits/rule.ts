import type { ExitClassifiers } from "../../io/index.js";
import { count, oneOf, type ParameterRules, type ParameterValues } from "../parameters.js";

/** What the final norm and the head make of a token's state behind some of the layers (AdaInfer, arXiv 2403.02181). */
export interface ExitFeatures {
  /** Probability of the most probable token; how far it is ahead of the second. 0 ≤ gap ≤ top ≤ 1. */
  readonly top: number;
  readonly gap: number;
}

/** Looks at one token behind one probed layer after another. @param layers how many have run @returns whether it may leave */
export type ExitDecider = (layers: number, features: ExitFeatures) => boolean;

/** A rule by which tokens leave a model early. */
export interface ExitRule<R extends ParameterRules = ParameterRules> {
  readonly summary: string;
  readonly parameters: R;
  /**
   * For one model: makes what looks at a token.
   * @param probed behind how many layers is looked, ascending
   * @throws UsageError where nothing was trained for those
   */
  open(values: ParameterValues<R>, probed: readonly number[], trained?: ExitClassifiers): () => ExitDecider;
}

/** Where is looked, and what becomes of the layers that a token leaves out: the same for every rule. */
export const schedule = {
  from: count("layers before the first look; 0: a quarter of all", 0, 0),
  every: count("layers from look to look; 0: an eighth of all", 0, 0),
  fill: oneOf(
    "keys and values of the layers left out: computed once a later token needs them, or of the state at the exit",
    "exact",
    "propagate",
  ),
} as const;

/** Checks a rule's types where it is declared, and gives it the schedule. */
export const exitRule = <const R extends ParameterRules>(rule: ExitRule<R>): ExitRule =>
  ({ ...rule, parameters: { ...rule.parameters, ...schedule } }) as unknown as ExitRule;
