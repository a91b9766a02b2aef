import { UsageError } from "../../core/index.js";
import { largest } from "../logits.js";
import { type Choosable, count, given, type ParameterRules, type ParameterValues, parseChoice } from "../parameters.js";

/** By what a small model leaves tokens, or whole texts, to a larger one. */
export interface RouteRule<R extends ParameterRules = ParameterRules> extends Choosable {
  readonly parameters: R;
  /** How sure a model is of the next token. @param logits f32 [vocabSize] */
  certainty(logits: Float32Array): number;
  /** The certainty below which is routed, by the threshold as it is written. */
  least(threshold: number): number;
  /** Tokens that are looked at before one decision is made for the whole text; left out where each token is decided. */
  span?(values: ParameterValues<R>): number;
}

const rule = <const R extends ParameterRules>(entry: RouteRule<R>): RouteRule => entry as unknown as RouteRule;

/** The probability of the likeliest token. */
function confidence(logits: Float32Array): number {
  const top = largest(logits);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - top);
  return 1 / total;
}

/** −Σ p · ln p, in nats. */
function entropy(logits: Float32Array): number {
  const top = largest(logits);
  let [total, weighted] = [0, 0];
  for (const logit of logits) {
    const weight = Math.exp(logit - top);
    total += weight;
    // e^−∞ · −∞ counts as 0.
    if (weight > 0) weighted += weight * (logit - top);
  }
  return Math.log(total) - weighted / total;
}

const budget = given("share of the tokens, or texts, that may be routed; the threshold follows from a text", 1);

/** All rules by the name that a text chooses them with. */
export const routeRules: Readonly<Record<string, RouteRule>> = {
  confidence: rule({
    summary: "tokens of which the likeliest has a probability below the threshold",
    parameters: { budget, threshold: given("probability below which a token is routed", 1) },
    certainty: confidence,
    least: (threshold) => threshold,
  }),
  entropy: rule({
    summary: "tokens whose distribution has an entropy above the threshold",
    parameters: { budget, threshold: given("nats above which a token is routed", 100) },
    certainty: (logits) => -entropy(logits),
    least: (threshold) => -threshold,
  }),
  cascade: rule({
    summary:
      "whole texts whose first tokens have a mean probability below the threshold; the server then writes all of it",
    parameters: {
      budget,
      threshold: given("mean probability below which a text is routed", 1),
      tokens: count("tokens that are looked at", 1, 16),
    },
    certainty: confidence,
    least: (threshold) => threshold,
    span: ({ tokens }) => tokens,
  }),
};

/** A rule with its parameters. */
export interface Route {
  /** As it was written: `confidence:budget=0.2`. */
  readonly text: string;
  readonly rule: string;
  /** Share that may be routed; undefined where a threshold was given. */
  readonly budget: number | undefined;
  /** The certainty below which is routed; undefined until it is found for a budget (`calibrateRoute`). */
  readonly least: number | undefined;
  /** Tokens of one decision for the whole text; undefined where each token is decided. */
  readonly span: number | undefined;
  /** How sure a model is of the next token. @param logits f32 [vocabSize] */
  certainty(logits: Float32Array): number;
}

/**
 * Reads by what tokens or texts are routed: `confidence:budget=0.2`, `entropy:threshold=2.5`, `cascade:threshold=0.4,tokens=16`.
 * @throws UsageError naming what is wrong and what there is
 */
export function parseRoute(text: string): Route {
  const { name, entry, values } = parseChoice("a rule of routing", routeRules, text);
  const { budget, threshold } = values as { budget: number; threshold: number };
  if (Number.isNaN(budget) === Number.isNaN(threshold))
    throw new UsageError(`a rule of routing "${text}": give either budget or threshold`);
  return {
    text,
    rule: name,
    budget: Number.isNaN(budget) ? undefined : budget,
    least: Number.isNaN(threshold) ? undefined : entry.least(threshold),
    span: entry.span?.(values as never),
    certainty: entry.certainty,
  };
}

/** The same rule with the certainty below which a share of those that were measured lies: as many as fit into the budget. */
export function withBudget(route: Route, certainties: readonly number[]): Route {
  if (route.budget === undefined) return route;
  const sorted = [...certainties].sort((a, b) => a - b);
  const routed = Math.floor(route.budget * sorted.length);
  return { ...route, least: routed < sorted.length ? sorted[routed] : Number.POSITIVE_INFINITY };
}
