import { UsageError } from "../../core/index.js";
import { slotsOfBlock } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import { count, word } from "../parameters.js";
import { BlockChoice, rowGroups } from "./blockChoice.js";
import { addBlocks, blockScores } from "./blockSparse.js";
import { dynamicPattern, type Look, type Seeker } from "./dynamic.js";
import { type LastQueries, lastQueries } from "./lastQueries.js";
import { addVerticalSlash } from "./verticalSlash.js";

/** Patterns of heads by the letters that `heads` is written with: A-shape, vertical and slash lines, blocks. */
const letters = ["a", "v", "b"] as const;
type Letter = (typeof letters)[number];

/** Of the budget of an A-shape what its sinks take. */
const sinkShare = 1 / 8;

/**
 * MInference (2407.02490): of three patterns each head has the one that suits it, at equal cost. `heads` names them, a letter
 * for each head, layers joined by dots; `search` finds them on the first prompt that is long enough, by what the last rows
 * give to what each pattern shows.
 */
export const minference = dynamicPattern({
  summary: "of a prompt, by head, an A-shape, lines or blocks (MInference)",
  parameters: {
    budget: count("positions that a row sees, at least 128", 128, 1024),
    queries: count("last rows that decide", 1, 16),
    heads: word("search, or a, v and b by head, layers joined by dots", /^(search|[avb.]{1,10000})$/, "search"),
  },
  seek: (values) => (model) => new HeadPatterns(values, model),
});

class HeadPatterns implements Seeker {
  /** By layer, where they are known. */
  readonly #heads: (readonly Letter[])[];
  readonly layers: number;
  /** Layers that see everything but for this: those with a window of their own never ask. */
  readonly #asked: readonly number[];

  constructor(
    readonly values: { readonly budget: number; readonly queries: number; readonly heads: string },
    { config }: Model,
  ) {
    const { heads } = values;
    this.layers = config.layers;
    this.#asked = config.slidingWindows.flatMap((window, layer) => (window === undefined ? [layer] : []));
    this.#heads = heads === "search" ? [] : heads.split(".").map((of) => [...of] as Letter[]);
    if (heads === "search") return;
    const fits =
      this.#heads.length === config.layers &&
      this.#asked.every((layer) => this.#heads[layer].length === config.blocks[layer].queryHeads);
    if (!fits) throw new UsageError(`minference: heads=${heads} does not name the heads of ${config.layers} layers`);
  }

  async find(look: Look) {
    const { budget, queries } = this.values;
    const { layer, q, slot, phase, queryHeads } = look;
    if (phase === "decode" || q.rows === 1 || slot + q.rows <= budget) return undefined;
    const known = this.#heads[layer];
    const has = (letter: Letter) => known === undefined || known.includes(letter);
    const last = has("v") ? await lastQueries(look, queries) : undefined;
    const scores = has("b") ? await blockScores(look) : undefined;
    const add = (choice: BlockChoice, head: number, letter: Letter) => {
      if (letter === "a") addShape(choice, head, look, budget);
      else if (letter === "v") addVerticalSlash(choice, head, last!, look, { vertical: budget / 2, slash: budget / 2 });
      else addBlocks(choice, head, scores!, look, Math.floor(budget / (2 * slotsOfBlock)));
    };
    this.#heads[layer] ??= search(look, last!, add);
    const choice = new BlockChoice(look);
    for (let head = 0; head < queryHeads; head++) add(choice, head, this.#heads[layer][head]);
    return choice;
  }

  get text(): string {
    const { budget, queries } = this.values;
    const found = this.#asked.length > 0 && this.#asked.every((layer) => this.#heads[layer] !== undefined);
    const letters = Array.from({ length: this.layers }, (_, layer) => this.#heads[layer]?.join("") ?? "");
    const heads = found ? letters.join(".") : "search";
    return `minference:budget=${budget},queries=${queries},heads=${heads}`;
  }

  [Symbol.dispose](): void {}
}

/** Sinks and a window. */
function addShape(choice: BlockChoice, head: number, look: Look, budget: number): void {
  const sinks = Math.ceil((budget * sinkShare) / slotsOfBlock);
  const window = budget - sinks * slotsOfBlock;
  for (const { group, first, last } of rowGroups(look)) {
    choice.add(group, head, 0, sinks);
    const least = Math.floor((look.slot + first - window + 1) / slotsOfBlock);
    choice.add(group, head, least, Math.floor((look.slot + last) / slotsOfBlock) + 1);
  }
}

/** Of every head the pattern that shows most of what the last rows look at; of equals the first. */
function search(
  look: Look,
  last: LastQueries,
  add: (choice: BlockChoice, head: number, letter: Letter) => void,
): Letter[] {
  const choices = letters.map((letter) => {
    const choice = new BlockChoice(look);
    for (let head = 0; head < look.queryHeads; head++) add(choice, head, letter);
    return { letter, choice };
  });
  return Array.from({ length: look.queryHeads }, (_, head) => {
    const shown = choices.map(({ choice }) => recall(choice, head, last, look.slot));
    return choices[shown.indexOf(Math.max(...shown))].letter;
  });
}

/** What the last rows give to what a head sees. */
function recall(choice: BlockChoice, head: number, { first, count, shares }: LastQueries, slot: number): number {
  let sum = 0;
  for (let row = first; row < first + count; row++) {
    const [words, given] = [choice.words(row, head), shares(row, head)];
    for (let s = 0; s <= slot + row; s++) if (words[Math.floor(s / slotsOfBlock)] !== 0) sum += given[s];
  }
  return sum;
}
