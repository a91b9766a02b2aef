import type { Activation, Backend, ChosenSlots } from "../../kernels/index.js";
import type { LayerQueries, Model } from "../../model/index.js";
import type { ParameterRules, ParameterValues } from "../parameters.js";

/** What a pass runs: tokens of a prompt, or tokens as they are generated, drafted ones too; left out where it is not known. */
export type Phase = "prompt" | "decode";

/** Queries of one layer in a pass. */
export interface Look extends LayerQueries {
  readonly backend: Backend;
  readonly phase: Phase | undefined;
  /** Memory that is the same in every call, by name: f32 [rows, cols]. */
  scratch(name: string, rows: number, cols: number): Activation;
}

/** What a dynamic pattern remembers of one sequence. */
export interface Seeker extends Disposable {
  /** What the rows of a pass see; undefined: everything before. */
  find(look: Look): Promise<ChosenSlots | undefined>;
  /** The pattern as it would be written with what was found so far; left out where nothing is looked for once. */
  readonly text?: string;
  /** Bytes of what it keeps of keys at most; left out: nothing. */
  readonly mostBytes?: number;
}

/** An attention pattern that decides what is seen once queries and keys are known. */
export interface DynamicPattern<R extends ParameterRules = ParameterRules> {
  readonly summary: string;
  readonly parameters: R;
  /** Prepares the pattern; the function it gives is called for every sequence, of at most `capacity` tokens. */
  seek(values: ParameterValues<R>): (model: Model, capacity: number) => Seeker;
}

/** Checks a pattern's types where it is declared. */
export const dynamicPattern = <const R extends ParameterRules>(entry: DynamicPattern<R>): DynamicPattern =>
  entry as unknown as DynamicPattern;

/** A seeker of passes over prompts that remembers nothing; single and generated tokens see everything before. */
export const promptSeeker = (find: Seeker["find"]) => (): Seeker => ({
  find: async (look) => (look.phase === "decode" || look.q.rows === 1 ? undefined : find(look)),
  [Symbol.dispose]: () => {},
});

/** Shape of what is looked at: slots in use, key heads and how many query heads share one. */
export function shapeOf({ q, slot, cache, layer, queryHeads }: Look) {
  const { heads: kvHeads, key } = cache.spec.layers[layer];
  return { slots: slot + q.rows, kvHeads, shared: queryHeads / kvHeads, keyCols: kvHeads * key };
}
