import type { Batch, BatchControl } from "../objective.js";

/** Several controls as one, each with its own state; undefined for none. */
export function joinControls(...given: readonly (BatchControl | undefined)[]): BatchControl | undefined {
  const controls = given.filter((control) => control !== undefined);
  if (controls.length < 2) return controls[0];
  const all = (arrays: readonly Batch[]): Batch => Object.assign({}, ...arrays);
  return {
    state: Object.fromEntries(controls.map(({ state }, i) => [String(i), state])),
    arrays: () => all(controls.map((control) => control.arrays())),
    evaluationArrays: () => all(controls.map((control) => control.evaluationArrays?.() ?? control.arrays())),
    observe(measured) {
      for (const control of controls) control.observe(measured);
    },
    metrics: () => Object.assign({}, ...controls.map((control) => control.metrics?.())),
  };
}
