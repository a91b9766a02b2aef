import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import type { ExitClassifiers } from "../../io/index.js";
import type { Activation } from "../../kernels/index.js";
import { checkSound, explainNonFinite, firstNonFiniteOf, type Model } from "../../model/index.js";
import { checkGenerates } from "../../model/internal.js";
import { exitFeatures, probedLayers } from "../../runtime/internal.js";
import type { TokenizedText } from "../../text/index.js";
import { fitCrf } from "./crf.js";
import type { Looks } from "./looks.js";
import { fitSvm } from "./svm.js";

/** How much text is looked at, and where the chain is to look. */
export interface ExitTrainingOptions extends JobOptions {
  /** Tokens of a window. Default 512. */
  window?: number;
  /** Windows from the start of the text; default 32. */
  calibrationWindows?: number;
  /** Layers before the first look of the chain; default a quarter of all. */
  from?: number;
  /** Layers from look to look of the chain; default an eighth of all. */
  every?: number;
}

/**
 * Trains what tells whether a token may leave behind a layer (AdaInfer, arXiv 2403.02181): behind every layer but the last a linear
 * support vector machine, and one conditional random field over the layers that are looked at. The model runs whole windows of
 * text as it is, with its thresholds on all tokens; a label says that the most probable next token is the one that all layers
 * give. The same input gives the same numbers.
 * @throws UsageError for a text shorter than one window, and where there is no layer to leave behind
 */
export async function trainExits(
  model: Model,
  text: TokenizedText,
  options: ExitTrainingOptions = {},
): Promise<ExitClassifiers> {
  checkSound(model);
  checkGenerates(model);
  const { window = 512, calibrationWindows = 32, from = 0, every = 0, signal, onProgress } = options;
  const { layers } = model.config;
  const probed = probedLayers(layers, { from, every });
  const windows = Math.min(calibrationWindows, Math.floor(text.tokens.length / window));
  if (!(Number.isSafeInteger(window) && window >= 1 && windows >= 1)) {
    throw new UsageError(
      `${text.name ?? "the text"} has ${text.tokens.length} tokens, and ${calibrationWindows} windows of ${window} are asked ` +
        "for: give a longer text or a smaller window (`window`)",
    );
  }
  const stage = new Stage("train", windows * window, "tokens", onProgress);
  const looks = emptyLooks(layers - 1, windows * window);
  using cache = model.createCache(window);
  for (let w = 0; w < windows; w++) {
    const tokens = text.tokens.subarray(w * window, (w + 1) * window);
    const x = model.embed(tokens);
    try {
      const best: Uint32Array[] = [];
      for (let layer = 0; layer < layers; layer++) {
        await breathe(signal);
        await model.block(layer, x, cache, 0);
        best.push(await lookAt(model, tokens, x, { looks, layer, first: w * window }));
      }
      const last = best[layers - 1];
      for (const [l, agrees] of looks.agrees.entries()) {
        for (let i = 0; i < window; i++) agrees[w * window + i] = Number(best[l][i] === last[i]);
      }
    } finally {
      model.backend.release(x);
    }
    stage.advance(window);
  }
  const places = probed.map((at) => at - 1);
  const chain: Looks = {
    tokens: looks.tokens,
    layers: probed,
    top: places.map((l) => looks.top[l]),
    gap: places.map((l) => looks.gap[l]),
    agrees: places.map((l) => looks.agrees[l]),
  };
  return {
    layers: looks.layers.map((count, l) => ({
      layers: count,
      agreement: looks.agrees[l].reduce((sum, agrees) => sum + agrees, 0) / looks.tokens,
      svm: fitSvm(looks, l),
    })),
    crf: { ...fitCrf(chain), probed },
    calibration: { textSha256: text.sha256, windows, window, ...(text.windowsBegin && { bos: true as const }) },
  };
}

function emptyLooks(layers: number, tokens: number) {
  const floats = () => Array.from({ length: layers }, () => new Float32Array(tokens));
  return {
    tokens,
    layers: Array.from({ length: layers }, (_, l) => l + 1),
    top: floats(),
    gap: floats(),
    agrees: Array.from({ length: layers }, () => new Uint8Array(tokens)),
  };
}

/** Logits are looked at in pieces of at most this many numbers (32 MiB), whatever the vocabulary. */
const pieceValues = 2 ** 23;

/** Notes gap and top behind a layer, but not behind the last. @returns the most probable token of each row */
async function lookAt(
  model: Model,
  tokens: Uint32Array,
  x: Activation,
  { looks, layer, first }: { looks: ReturnType<typeof emptyLooks>; layer: number; first: number },
): Promise<Uint32Array> {
  const { vocabSize } = model.config;
  const best = new Uint32Array(x.rows);
  const most = Math.max(1, Math.floor(pieceValues / vocabSize));
  for (let done = 0; done < x.rows; done += most) {
    const rows = Math.min(most, x.rows - done);
    const logits = model.head(x.rowRange(done, rows));
    const values = await model.backend.read(logits);
    const { cols } = logits;
    model.backend.release(logits);
    if (firstNonFiniteOf(values) >= 0) throw await explainNonFinite(model, tokens);
    for (let r = 0; r < rows; r++) {
      const row = values.subarray(r * cols, r * cols + vocabSize);
      best[done + r] = row.reduce((at, logit, id) => (logit > row[at] ? id : at), 0);
      if (layer >= looks.layers.length) continue;
      const { top, gap } = exitFeatures(row);
      looks.top[layer][first + done + r] = top;
      looks.gap[layer][first + done + r] = gap;
    }
  }
  return best;
}
