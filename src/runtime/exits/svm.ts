import { UsageError } from "../../core/index.js";
import { exitRule } from "./rule.js";

/** A linear support vector machine behind every layer: leaves where w · (gap, top) + b > 0. */
export const svm = exitRule({
  summary: "leaves where a trained line between gap and top says so (AdaInfer); rarefy exits trains it",
  parameters: {},
  open(_, probed, trained) {
    if (trained === undefined) throw new UsageError(untrained("svm"));
    const byLayers = new Map(trained.layers.map(({ layers, svm }) => [layers, svm]));
    const missing = probed.find((layers) => !byLayers.has(layers));
    if (missing !== undefined) {
      throw new UsageError(
        `svm was not trained behind layer ${missing}; it belongs to another model: train again (rarefy exits)`,
      );
    }
    return () =>
      (layers, { gap, top }) => {
        const line = byLayers.get(layers)!;
        return line.gap * gap + line.top * top + line.bias > 0;
      };
  },
});

/** @param rule that needs training */
export const untrained = (rule: string): string =>
  `${rule} has to be trained for a model, and this one's rarefy.json has none: rarefy exits MODEL --text FILE -o OUT`;
