import { activationOf, type BlockSpec, linearsOf, readersOf, stepsOf } from "../arch/index.js";
import { NonFiniteError } from "../core/index.js";
import type { Activation } from "../kernels/index.js";
import type { Model } from "./types.js";

/** What is said of numbers that went out of range at a named place. */
export function nonFiniteError(place: string, value: number): NonFiniteError {
  return new NonFiniteError(
    `the model's numbers leave the finite range ${place}: ${value}. Its weights are finite, so an activation overflowed: ` +
      "the weights are damaged or do not belong to this config.json (norms, epsilon, rotary scaling); take another copy of the model",
  );
}

/** Tokens that are run again to find the place. */
const mostTokens = 1024;

/** See `explainNonFinite` of nonFinite.ts, which loads this file once something has gone wrong. @param firstNonFiniteOf place of the first such number, −1 without */
export async function findNonFinite(
  model: Model,
  tokens: Uint32Array,
  firstNonFiniteOf: (values: Float32Array) => number,
): Promise<NonFiniteError> {
  const some = tokens.subarray(0, mostTokens);
  const { backend, config } = model;
  using cache = model.createCache(some.length, { allowBeyondTraining: true });
  const x = model.embed(some);
  const find = async (activation: Activation, where: string) => {
    const values = await backend.read(activation);
    const at = firstNonFiniteOf(values);
    if (at < 0) return;
    throw nonFiniteError(`in ${where}, row ${Math.floor(at / activation.cols)}`, values[at]);
  };
  try {
    await find(x, "the embeddings");
    for (let layer = 0; layer < config.layers; layer++) {
      const block = config.spec.blocks[layer];
      const readers = readersOf(block);
      const onActivation = (_: number, site: string, activation: Activation) =>
        find(activation, `layer ${layer}, ${describeSite(block, readers.get(site)!)}`);
      await model.block(layer, x, cache, 0, { tap: { sites: [...readers.keys()], onActivation } });
      await find(x, `layer ${layer}, what its block adds (${linearsOf(block).at(-1)!.role})`);
    }
    return nonFiniteError(
      `behind the last layer${some.length < tokens.length ? ` or position ${mostTokens}` : ""}`,
      Number.NaN,
    );
  } catch (error) {
    if (error instanceof NonFiniteError) return error;
    throw error;
  } finally {
    backend.release(x);
  }
}

/** The place that these maps read; what none reads is the gate, before its function. */
function describeSite(block: BlockSpec, readers: readonly string[]): string {
  if (readers.length > 0) return `the input of ${readers.join(", ")}`;
  const gate = activationOf(block)!.step.of;
  const maps = [...stepsOf(block)].flatMap((step) => (step.do === "linear" ? step.maps : []));
  return `the gate (${maps.find(({ into }) => into === gate)!.map.role})`;
}
