import * as z from "zod/mini";
import { Random } from "../../core/index.js";
import type { Layer, PruneMethod } from "../contract.js";
import { aggregations, joinMembers, type LineScore, lineScores } from "../importance.js";
import { pruneByScore } from "../score.js";
import type { InputStatistics, StatisticId } from "../statistics.js";

const importances = ["first", "second", "mixed", "vector", "l1", "l2", "random"] as const;
type Importance = (typeof importances)[number];

const options = z.strictObject({
  importance: z
    ._default(z.enum(importances), "first")
    .check(
      z.describe(
        "of a weight w with gradient g and mean squared gradient F: first |g·w|, second |w²·F|, mixed |g·w − ½w²·F|, l1 |w|; " +
          "of a row or column: vector |Σ g·w|, l2 its length; random",
      ),
    ),
  aggregate: z
    ._default(z.enum(aggregations), "sum")
    .check(
      z.describe("how the scores of the matrices that lose a unit become one; first, last: those of one matrix alone"),
    ),
  seed: z._default(z.int().check(z.gte(0), z.lte(0xffffffff)), 0).check(z.describe("of random")),
});
type Options = z.output<typeof options>;

/** What is known of one weight. */
interface Known {
  w: Float32Array;
  g: Float32Array;
  f: Float32Array;
}

/** The score of a weight, and of a row or column where that is more than their sum. */
const scoresOf: Readonly<
  Record<
    Exclude<Importance, "random">,
    { needs: readonly StatisticId[]; of: (known: Known, i: number) => number; line?: (known: Known) => LineScore }
  >
> = {
  first: { needs: ["gradients"], of: ({ w, g }, i) => Math.abs(g[i] * w[i]) },
  second: { needs: ["squaredGradients"], of: ({ w, f }, i) => w[i] * w[i] * f[i] },
  mixed: {
    needs: ["gradients", "squaredGradients"],
    of: ({ w, g, f }, i) => Math.abs(g[i] * w[i] - 0.5 * w[i] * w[i] * f[i]),
  },
  vector: {
    needs: ["gradients"],
    of: ({ w, g }, i) => Math.abs(g[i] * w[i]),
    line: ({ w, g }) => ({ entry: (i) => g[i] * w[i], whole: Math.abs }),
  },
  l1: { needs: [], of: ({ w }, i) => Math.abs(w[i]) },
  l2: {
    needs: [],
    of: ({ w }, i) => Math.abs(w[i]),
    line: ({ w }) => ({ entry: (i) => w[i] * w[i], whole: Math.sqrt }),
  },
};

/**
 * Neurons and heads by what the loss is expected to lose with them, from gradients of a few short texts; nothing else moves, and
 * training brings much of the loss back. Of single weights, 2:4 and blocks the score of a weight decides.
 */
export const method: PruneMethod<Options> = {
  id: "llm-pruner",
  title: "LLM-Pruner",
  paper: "Ma, Fang, Wang 2023, arXiv:2305.11627",
  options,
  patterns: {
    neurons: ["tensor", "global"],
    heads: ["tensor", "global"],
    unstructured: ["tensor", "row"],
    nm: ["row"],
    block: ["tensor", "row"],
  },
  needs: ({ importance }) => (importance === "random" ? [] : scoresOf[importance].needs),
  // Squares add up over what goes together, and importances do.
  score: (layer, statistics, options) => elementScores(layer, statistics, options).map(Math.sqrt),
  unitScores({ count, members }, statistics, options) {
    const { importance, aggregate } = options;
    if (importance === "random") {
      const random = randomOf(members[0].layer, options);
      return Float32Array.from({ length: count }, () => random.uniform());
    }
    const { needs, of, line } = scoresOf[importance];
    const lines = members.map(({ layer, axis }, m) => {
      const known = knownOf(layer, statistics[m], needs);
      return lineScores(layer, axis, line?.(known) ?? { entry: (i) => of(known, i), whole: (sum) => sum });
    });
    return joinMembers({ count, members }, lines, aggregate);
  },
  prune: (layer, statistics, pattern, options) =>
    pruneByScore(method, layer, elementScores(layer, statistics, options), pattern),
};

function elementScores(layer: Layer, statistics: InputStatistics, options: Options): Float32Array {
  if (options.importance === "random") {
    const random = randomOf(layer, options);
    return layer.weight.map(() => random.uniform());
  }
  const { needs, of } = scoresOf[options.importance];
  const known = knownOf(layer, statistics, needs);
  return layer.weight.map((_, i) => of(known, i));
}

const nothing = new Float32Array();

const knownOf = ({ weight }: Layer, statistics: InputStatistics, needs: readonly StatisticId[]): Known => ({
  w: weight,
  g: needs.includes("gradients") ? statistics.get("gradients") : nothing,
  f: needs.includes("squaredGradients") ? statistics.get("squaredGradients") : nothing,
});

/** Every matrix draws its own: its first weight is mixed in. */
const randomOf = ({ weight }: Layer, { seed }: Options): Random =>
  new Random((seed ^ new Uint32Array(weight.slice(0, 1).buffer)[0]) >>> 0);
