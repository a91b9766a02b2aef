import { share } from "../parameters.js";
import { exitRule } from "./rule.js";

/** Every layer is run. */
export const never = exitRule({
  summary: "every token runs through all layers",
  parameters: {},
  open: () => () => () => false,
});

/** Leaves where the most probable token is probable enough. */
export const top = exitRule({
  summary: "leaves where a token is this probable",
  parameters: { least: share("probability", 0.9) },
  open:
    ({ least }) =>
    () =>
    (_, features) =>
      features.top >= least,
});

/** Leaves where the most probable token is far enough ahead of the second. */
export const gap = exitRule({
  summary: "leaves where a token is ahead of the second by so much",
  parameters: { least: share("probability", 0.8) },
  open:
    ({ least }) =>
    () =>
    (_, features) =>
      features.gap >= least,
});
