import { UsageError } from "../../core/index.js";
import { exitRule } from "./rule.js";
import { untrained } from "./svm.js";

/**
 * A conditional random field over the looks at one token: whether it may leave depends on whether it might have before. Its
 * forward messages are enough as the token goes: a(y) = Σ a'(y') · exp(T[y'][y] + u_y · φ), and it leaves where a(1) > a(0).
 */
export const crf = exitRule({
  summary: "leaves where a trained chain over the looks says so (AdaInfer); rarefy exits trains it",
  parameters: {},
  open(_, probed, trained) {
    if (trained?.crf === undefined) throw new UsageError(untrained("crf"));
    const { crf } = trained;
    if (crf.probed.join() !== probed.join()) {
      throw new UsageError(
        `crf was trained to look behind layers ${crf.probed.join(", ")}, not ${probed.join(", ")}: take those, or train it ` +
          "for these (rarefy exits --from … --every …)",
      );
    }
    return () => {
      let before: readonly [number, number] | undefined;
      return (_layers, { gap, top }) => {
        const seen = Math.exp(crf.gap * gap + crf.top * top + crf.bias);
        const reach = (y: 0 | 1) =>
          before === undefined
            ? 1
            : before[0] * Math.exp(crf.transitions[0][y]) + before[1] * Math.exp(crf.transitions[1][y]);
        const [stay, leave] = [reach(0), reach(1) * seen];
        const sum = stay + leave;
        before = [stay / sum, leave / sum];
        return before[1] > 0.5;
      };
    };
  },
});
