import type { Buffer, MultiplicativeStep } from "../../arch/index.js";
import type { Matrix, Vector } from "../../kernels/index.js";
import { bufferOf } from "../pass.js";
import type { LoadedSmall, SmallWeights } from "./loaded.js";

/** Loads products of two thin matrices: x is scaled once for every module, and each copy is multiplied with the same small matrix. */
export async function loadMultiplicative(
  { of, maps, add }: MultiplicativeStep,
  { region, matrix, values }: SmallWeights,
): Promise<LoadedSmall> {
  const [modules, cols] = maps[0].scales.shape;
  // Every copy has every column: a look-up of columns, each times its own number.
  const index = region.loadVector(Float32Array.from({ length: modules * cols }, (_, at) => at % cols));
  const unread = region.loadVector(new Float32Array(cols));
  const loaded: { into: Buffer; mixes: Matrix; scale: Vector }[] = [];
  for (const { scales, mixes, into } of maps)
    loaded.push({ into, mixes: await matrix(mixes), scale: region.loadVector(await values(scales)) });
  return {
    operation(pass) {
      const { backend } = pass;
      const x = bufferOf(pass, of);
      const copies = pass.scratch(x.rows, modules * cols, "scaled copies");
      for (const { into, mixes, scale } of loaded) {
        backend.morphemeScores(copies, x, unread, index, { scale, order: 1, morphemes: cols, width: 1, rank: 1 });
        const out = bufferOf(pass, into).reshape(mixes.rows);
        backend.linear(out, copies.reshape(cols), mixes, { accumulate: add === true });
      }
    },
  };
}
