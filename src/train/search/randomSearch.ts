import type { Search } from "./contract.js";

/** Points drawn uniformly, each for itself: what a search has to be better than. */
export const search: Search = {
  id: "random",
  title: "random search",
  paper: "Bergstra and Bengio 2012, JMLR 13:281",
  *points({ point: { length } }, { bound, random }) {
    for (;;) yield Float64Array.from({ length }, () => bound * (2 * random.uniform() - 1));
  },
};
