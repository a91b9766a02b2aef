// Which options and ranks give factors of (nearly) a given number of numbers: a search over the methods' own formulas of size.
import { tensorMethods } from "../dist/compress/index.js";
import { factorParameters } from "../dist/tensor/index.js";

/** Of the options whose factors come so near to the target the first are taken. */
const near = 0.05;
const most = 4096;
const ranks = Array.from({ length: most / 4 }, (_, n) => ({ rank: 4 * (n + 1) }));
const shares = (ratio) => Array.from({ length: 101 }, (_, n) => ({ keepRatio: (0.8 + 0.004 * n) / ratio }));

/** What is tried of each method: options, in order of preference, and how sizes are asked for. */
const candidates = {
  // Of a table of tokens a train of two axes is what word2ketXS is.
  tt: (_, of) => ({ options: (of === "embedding" ? [3, 2] : [2, 3]).map((order) => ({ order })), sizes: ranks }),
  htt: (ratio) => ({ options: [{ order: 2 }, { order: 3 }], sizes: shares(ratio) }),
  tucker: (ratio) => ({ options: [{ order: 2 }, { order: 3 }], sizes: shares(ratio) }),
  matrix: () => ({ options: [{}], sizes: ranks }),
  word2ketxs: () => ({ options: [{}], sizes: ranks }),
  word2ket: () => ({ options: [{}], sizes: Array.from({ length: 64 }, (_, n) => ({ rank: n + 1 })) }),
  // Its own formula already gives the largest number of terms; cutting all tokens anew for every rank would take minutes.
  morphte: (ratio) => ({ options: [{ order: 3 }, { order: 2 }], sizes: [{ keepRatio: 1 / ratio }] }),
};

/**
 * The options and the size of a method whose factors of all shapes together come nearest to 1 / ratio of their numbers.
 * @param of "blocks" or "embedding"
 * @returns undefined where nothing of it is smaller than the shapes
 */
export function nearestSize(method, shapes, ratio, of) {
  const dense = shapes.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const distance = ({ numbers }) => Math.abs(Math.log((numbers * ratio) / dense));
  const { options, sizes } = candidates[method](ratio, of);
  const found = options.flatMap((given) => {
    const parsed = tensorMethods[method].options.parse(given);
    const all = sizes.flatMap((size) => {
      const numbers = numbersOf(method, parsed, shapes, size);
      return numbers === undefined || numbers >= dense ? [] : [{ options: given, size, numbers }];
    });
    return all.length === 0 ? [] : [all.reduce((a, b) => (distance(b) < distance(a) ? b : a))];
  });
  return found.find((one) => distance(one) < near) ?? found.sort((a, b) => distance(a) - distance(b))[0];
}

function numbersOf(method, options, shapes, size) {
  try {
    return shapes.reduce(
      (sum, shape) => sum + factorParameters(tensorMethods[method].plan(shape, options, size), shape),
      0,
    );
  } catch (error) {
    if (error.code === "USAGE" || error.name === "UsageError") return undefined;
    throw error;
  }
}

/** The rank, in fours, of two plain factors of every shape whose numbers come nearest to 1 / ratio. */
export function nearestRank(shapes, ratio) {
  const perRank = shapes.reduce((sum, { rows, cols }) => sum + rows + cols, 0);
  const dense = shapes.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const rank = Math.max(4, 4 * Math.round(dense / ratio / perRank / 4));
  return { rank, numbers: rank * perRank };
}
