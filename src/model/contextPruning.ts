import type { AttendStep, LinearSpec, TensorRef } from "../arch/index.js";
import { type Backend, keyBlocks, type Matrix, type Sight, type Vector } from "../kernels/index.js";
import { interactions } from "./buffers.js";
import { CacheContext, type LayerContext } from "./layerContext.js";
import { append, attendTo } from "./operations.js";
import { bufferOf, eachPart, type LoadedPruning, type Operation, type PassPart, rowsOf } from "./pass.js";

/** What tells which positions are no longer needed, [rank, hiddenSize] each, and a number. */
interface Interactions {
  readonly query: Matrix;
  readonly key: Matrix;
  readonly bias: number;
}

/** What a block that prunes its context runs; this file is loaded with a model that has any. */
export async function loadPruning(
  step: AttendStep,
  matrix: (map: LinearSpec) => Promise<Matrix>,
  values: (ref: TensorRef) => Promise<Float32Array>,
): Promise<LoadedPruning> {
  const { query, key, bias } = step.pruning!;
  const loaded = { query: await matrix(query), key: await matrix(key), bias: (await values(bias))[0] };
  return { attention: (sinks) => prunedAttention(step, loaded, sinks), open: (steps) => new CacheContext(steps) };
}

/** Attention of a block that prunes its context. The host decides: interactions are read, what rows see is loaded. */
const prunedAttention =
  (step: AttendStep, { query, key, bias }: Interactions, sinks: Vector | undefined): Operation =>
  async (pass) => {
    const { backend, layer, buffers } = pass;
    const of = bufferOf(pass, step.pruning!.of);
    for (const [i, matrix] of [query, key].entries()) backend.linear(buffers.of(interactions[i]), of, matrix);
    const [out, q, k, v] = [step.into, step.q, step.k, step.v].map((name) => bufferOf(pass, name));
    const both = await backend.read(buffers.together(interactions)!);
    const width = query.rows + key.rows;
    await eachPart(pass, async (part) => {
      append(pass, part, rowsOf(k, part), rowsOf(v, part));
      const { firstRow, rows, start: position, slot } = part;
      const context = part.context(layer);
      const own = both.subarray(firstRow * width, (firstRow + rows) * width);
      context.run({ position, slot, rows, interactions: own, bias });
      const sight = pass.keysOnly ? undefined : sightOf(context, part, step, backend);
      const sighted = sight === undefined ? part : { ...part, sight: () => sight };
      await attendTo(pass, sighted, step, { q: rowsOf(q, part), out: rowsOf(out, part), sinks });
      sight?.[Symbol.dispose]();
    });
  };

function sightOf(
  context: LayerContext,
  { slot, rows }: PassPart,
  { heads, sight }: AttendStep,
  backend: Backend,
): Sight | undefined {
  const window = sight.kind === "window" ? sight.window : undefined;
  if (context.seesAll(window)) return undefined;
  const tableOfHead = new Array<number>(heads).fill(0);
  return backend.loadSight(
    keyBlocks({ rows, slots: slot + rows, tableOfHead }, (row) => context.seen(slot + row, window)),
  );
}
