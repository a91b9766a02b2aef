import type { Search } from "./contract.js";

/** Every way to search without gradients. */
export const searches: Readonly<Record<string, () => Promise<{ search: Search }>>> = {
  "one-plus-one": () => import("./onePlusOne.js"),
  cma: () => import("./cmaEs.js"),
  random: () => import("./randomSearch.js"),
};
