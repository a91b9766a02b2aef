import { clip, firstStep, normalPoint } from "./box.js";
import type { Search } from "./contract.js";

/** What a success multiplies the step by; a failure divides it by the fourth root, so that one success in five keeps it. */
const growth = 1.5;

/** One parent, one child, the better one stays; steps grow when more than one child in five is better, and shrink otherwise. */
export const search: Search = {
  id: "one-plus-one",
  title: "(1+1)-ES with the 1/5 rule",
  paper: "Rechenberg 1973; Kern et al. 2004, doi:10.1023/B:NACO.0000023416.59689.4e",
  *points(start, { bound, random }) {
    let [{ point, value }, step] = [start, firstStep(bound)];
    for (;;) {
      const draw = normalPoint(point.length, random);
      const child = clip(
        point.map((x, i) => x + step * draw[i]),
        bound,
      );
      const found = yield child;
      // An equal value moves too: a plateau is crossed at random and not waited on.
      const better = found <= value;
      if (better) [point, value] = [child, found];
      step *= better ? growth : growth ** -0.25;
    }
  },
};
