import type { Step } from "../arch/index.js";
import type { Activation } from "../kernels/index.js";
import { addPairs, pairScratch } from "./adapterPairs.js";
import { rescaleBy, rescalingScratch } from "./factorMixture.js";
import type { Pass } from "./pass.js";

/** Multiplies what one step has made, and adds to it, rows of adapters after others. */
export function adaptOutputs(pass: Pass, step: Step, x: Activation, out: Activation): void {
  for (const { firstRow, rows, adapter } of pass.adapted) {
    const own = adapter.blocks[pass.layer].get(step);
    if (own === undefined) continue;
    const of = (whole: Activation) => (whole.rows === rows ? whole : whole.rowRange(firstRow, rows));
    for (const mixture of own.outputs) {
      const work = pass.scratch(rows, rescalingScratch(mixture), purpose);
      rescaleBy(pass.backend, of(out).columns(mixture.start, mixture.cols), mixture, work);
    }
    const { pairs } = own;
    if (pairs !== undefined)
      addPairs(pass.backend, of(out), of(x), pairs, pass.scratch(rows, pairScratch(pairs), purpose));
  }
}

/** The inputs of a step as its matrices see them: those of rows whose adapter multiplies them are others. */
export function adaptedInputs(pass: Pass, step: Step, x: Activation): Activation {
  const { backend, layer } = pass;
  let changed: Activation | undefined;
  for (const { firstRow, rows, adapter } of pass.adapted) {
    const inputs = adapter.blocks[layer].get(step)?.inputs;
    if (inputs === undefined) continue;
    if (changed === undefined) {
      // Other steps may read what this one does.
      changed = pass.scratch(x.rows, x.cols, "adapted inputs");
      backend.map(changed, x, copy);
    }
    const own = changed.rows === rows ? changed : changed.rowRange(firstRow, rows);
    rescaleBy(backend, own, inputs, pass.scratch(rows, rescalingScratch(inputs), purpose));
  }
  return changed ?? x;
}

const copy = { f: "scale", by: 1 } as const;
/** Whose working memory it is. */
const purpose = "adapters";
