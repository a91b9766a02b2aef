import type { TrainMethod } from "./contract.js";

/** Every training method, by its id. Options differ in type; each method checks its own. */
// biome-ignore lint/suspicious/noExplicitAny: a table of generics
export const trainMethods: Readonly<Record<string, () => Promise<{ method: TrainMethod<any> }>>> = {
  dense: () => import("./dense.js"),
  "fixed-mask": () => import("./fixedMask.js"),
  gradual: () => import("./gradual.js"),
  lottery: () => import("./lotteryTicket.js"),
  iht: () => import("./iht.js"),
  l1: () => import("./l1.js"),
  ste: () => import("./ste.js"),
  "sr-ste": () => import("./srSte.js"),
  transposable: () => import("./transposable.js"),
  "s-ste": () => import("./sSte.js"),
  ast: () => import("./ast.js"),
  cast: () => import("./cast.js"),
  set: () => import("./set.js"),
  rigl: () => import("./rigl.js"),
  "grow-prune": () => import("./growPrune.js"),
  l0: () => import("./l0.js"),
  dynabert: () => import("./dynabert.js"),
  cofi: () => import("./cofi.js"),
};
