import type { Recipe } from "../../compress/index.js";
import { Random } from "../../core/index.js";
import type { TextWindows } from "../gradients.js";
import type { LabelledTokens } from "./planned.js";

/** The windows that the recipe asks for; the same seed draws the same ones. */
export function drawWindows(tokens: Uint32Array, recipe: Recipe): TextWindows {
  const { window, windows } = recipe.calibration;
  const drawn = new Uint32Array(windows * window);
  for (const [w, from] of drawnOf(Math.floor(tokens.length / window), recipe).entries())
    drawn.set(tokens.subarray(from * window, (from + 1) * window), w * window);
  return { tokens: drawn, window };
}

/** As many labelled texts, each cut to a window at most, and filled up to one. */
export function drawLabelled({ texts, labels }: LabelledTokens, recipe: Recipe): TextWindows {
  const chosen = drawnOf(texts.length, recipe);
  const cut = chosen.map((text) => texts[text].subarray(0, recipe.calibration.window));
  const window = Math.max(2, ...cut.map(({ length }) => length));
  const tokens = new Uint32Array(cut.length * window);
  for (const [w, text] of cut.entries()) tokens.set(text, w * window);
  return {
    tokens,
    window,
    lengths: Uint32Array.from(cut, ({ length }) => length),
    labels: Int32Array.from(chosen, (text) => labels[text]),
  };
}

/** Numbers of the windows that are taken, of so many. */
function drawnOf(count: number, { calibration, seed }: Recipe): number[] {
  const all = Array.from({ length: count }, (_, i) => i);
  if (calibration.order === "first") return all.slice(0, calibration.windows);
  const random = new Random(seed);
  for (let w = 0; w < calibration.windows; w++) {
    const other = w + random.integer(all.length - w);
    [all[w], all[other]] = [all[other], all[w]];
  }
  return all.slice(0, calibration.windows);
}
