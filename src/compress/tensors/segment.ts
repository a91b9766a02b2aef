import { UsageError } from "../../core/index.js";

/** How the tokens of a vocabulary are made of morphemes. */
export interface Segmentation {
  /** Texts of the morphemes by number; those that fill short tokens up are called ␀ with their place. */
  morphemes: readonly string[];
  /** Morphemes of every token: u32 [tokens, order]. */
  index: Uint32Array;
}

/** Longest token that is cut; of longer ones the rest stays together. */
const longest = 64;
const sweeps = 12;
/** What has been found nowhere else is as dear as if half a token had it. */
const aloneUsers = 0.5;

/**
 * Cuts every token into at most `order` pieces so that few pieces make them all. A piece has a price of one over the number of tokens
 * that use it, every token takes its cheapest cut, prices follow, and so on: pieces that many tokens share drive the others out.
 * @param pieces texts of the tokens by id; rows without a token get a morpheme of their own
 * @param given cuts by the text of a token, in the place of those found
 * @throws UsageError for given cuts that do not make their token, or have more than `order` pieces
 */
export function segment(
  pieces: readonly (string | undefined)[],
  order: number,
  given: Readonly<Record<string, readonly string[]>> = {},
): Segmentation {
  for (const [token, cut] of Object.entries(given)) {
    if (cut.join("") === token && cut.length <= order && cut.every((piece) => piece !== "")) continue;
    throw new UsageError(
      `segments of ${JSON.stringify(token)}: ${JSON.stringify(cut)}; give at most ${order} that make it`,
    );
  }
  const tokens = pieces.map((piece) => piece && Array.from(piece));
  const cuts = cheapestCuts(tokens, order, (token) => (Object.hasOwn(given, token) ? given[token] : undefined));
  // Rows without a token, then what fills up the places behind the first one.
  const numbers = new Map<string, number>();
  const numberOf = (name: string): number => {
    const known = numbers.get(name) ?? numbers.size;
    numbers.set(name, known);
    return known;
  };
  const filling = (place: number) => `␀${place}`;
  for (let place = 0; place < order; place++) numberOf(filling(place));
  const index = new Uint32Array(pieces.length * order);
  for (const [t, cut] of cuts.entries()) {
    for (let place = 0; place < order; place++) {
      index[t * order + place] = numberOf(place < cut.length ? `=${cut[place]}` : filling(place));
    }
  }
  return { morphemes: Array.from(numbers.keys(), (name) => name.replace(/^=/, "")), index };
}

type Characters = readonly string[] | "" | undefined;

function cheapestCuts(
  tokens: readonly Characters[],
  order: number,
  givenOf: (token: string) => readonly string[] | undefined,
): (readonly string[])[] {
  let users = possibleUsers(tokens);
  let cuts: (readonly string[])[] = [];
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const prices = (piece: string) => 1 / Math.max(aloneUsers, users.get(piece) ?? 0);
    const next = tokens.map((characters) =>
      characters ? (givenOf(characters.join("")) ?? cheapestCut(characters, order, prices)) : [],
    );
    users = new Map();
    for (const cut of next) for (const piece of cut) users.set(piece, (users.get(piece) ?? 0) + 1);
    const settled = next.every((cut, t) => cut.join("\0") === cuts[t]?.join("\0"));
    cuts = next;
    if (settled) break;
  }
  return cuts;
}

/** How many tokens a piece lies in, wherever. */
function possibleUsers(tokens: readonly Characters[]): Map<string, number> {
  const users = new Map<string, number>();
  for (const characters of tokens) {
    if (!characters) continue;
    const own = new Set<string>();
    const length = Math.min(longest, characters.length);
    for (let from = 0; from < length; from++) {
      let piece = "";
      for (let to = from; to < length; to++) {
        piece += characters[to];
        own.add(piece);
      }
    }
    for (const piece of own) users.set(piece, (users.get(piece) ?? 0) + 1);
  }
  return users;
}

/** By dynamic programming over where pieces end; of equally dear cuts the one with fewer pieces, then with the longer last one. */
function cheapestCut(characters: readonly string[], order: number, price: (piece: string) => number): string[] {
  const cut = Math.min(longest, characters.length);
  const units = [...characters.slice(0, cut - 1), characters.slice(cut - 1).join("")];
  const n = units.length;
  // best[count][end]: the price of units 0 … end − 1 in `count` pieces, and where the last of them begins.
  const best = Array.from({ length: order + 1 }, () => new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY));
  const begins = Array.from({ length: order + 1 }, () => new Int32Array(n + 1));
  best[0][0] = 0;
  const prices = units.map((_, from) => {
    let piece = "";
    return units.slice(from).map((unit) => {
      piece += unit;
      return price(piece);
    });
  });
  for (let count = 1; count <= order; count++) {
    for (let end = count; end <= n; end++) {
      for (let from = count - 1; from < end; from++) {
        const total = best[count - 1][from] + prices[from][end - from - 1];
        if (total < best[count][end]) {
          best[count][end] = total;
          begins[count][end] = from;
        }
      }
    }
  }
  let chosen = 1;
  for (let count = 2; count <= order; count++) if (best[count][n] < best[chosen][n] - 1e-12) chosen = count;
  const pieces: string[] = [];
  for (let [count, end] = [chosen, n]; count > 0; count--) {
    const from = begins[count][end];
    pieces.unshift(units.slice(from, end).join(""));
    end = from;
  }
  return pieces;
}
