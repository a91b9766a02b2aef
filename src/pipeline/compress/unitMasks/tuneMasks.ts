import type { BlockSpec, LinearSpec } from "../../../arch/index.js";
import { tuneMask, type UnitType } from "../../../compress/internal.js";
import { Stage, UsageError } from "../../../core/index.js";
import { type BlockMatrix, type DecoderBlock, loadBlock } from "../block.js";
import { loadable } from "../blockSource.js";
import type { Look } from "../look.js";
import { MaskSums } from "./maskSums.js";
import { type BlockPart, partsOf } from "./parts.js";
import { embedTexts, runPart, type TextRunner, type Texts } from "./texts.js";

/** Factors of the units of every block that is kept, by kind: numbers, 0 = gone. Empty where a block's units are left alone. */
export type UnitFactors = Record<UnitType, readonly ArrayLike<number>[]>;

/** Masks that were tuned, and which. */
export interface TunedMasks {
  factors: Record<UnitType, number[][]>;
  /** "heads of block 1" …, in their order. */
  tuned: string[];
}

/**
 * Finds factors of the units that stay, so that every layer adds to the stream what it takes to get from its own input to what
 * the teacher's stream is behind the same layer. The teacher is the same model under a milder mask, its texts under that mask
 * and the student's under the factors found so far. Layers from the first on; where factors cannot be trusted, those that follow
 * keep theirs.
 * @param student 0 or 1
 * @param teacher 0 or 1
 */
export async function tuneMasks(
  { checkpoint, plan, backend, options }: Look,
  kept: readonly number[],
  student: UnitFactors,
  teacher: UnitFactors,
): Promise<TunedMasks> {
  const { config } = plan.description;
  const { spec } = config;
  const factors = {
    heads: student.heads.map((mask) => Array.from(mask)),
    neurons: student.neurons.map((mask) => Array.from(mask)),
  };
  const tuned: string[] = [];
  const runner: TextRunner = { backend: backend!, spec, signal: options.signal };
  const wise = await embedTexts(checkpoint, spec, plan.windows!);
  const learning: Texts = { ...wise, streams: wise.streams.slice() };
  const firsts = startsOf(wise.lengths);
  const stage = new Stage("tune masks", kept.length, "blocks", options.onProgress);
  for (const [b, layer] of kept.entries()) {
    const block = await loadBlock(checkpoint, config, layer);
    const maskedBy = (of: UnitFactors) =>
      masked(checkpoint.location, block, { heads: of.heads[b], neurons: of.neurons[b] });
    for (const part of tunableParts(block.spec)) {
      const { output } = part;
      await runPart(runner, maskedBy(teacher), part, wise);
      const own = output && factors[output.kind][b];
      // What the first heads see has lost nothing yet.
      const isFirst = output?.kind === "heads" && b === 0;
      if (own?.some((factor) => factor !== 0) && !isFirst) {
        const { kind, map } = output!;
        // The class is read off the first token of a text alone.
        const readsFirst = spec.head.kind === "classifier" && b === kept.length - 1 && kind === "neurons";
        using sums = new MaskSums(backend!, block.matrices.get(map.id)!, own, kind === "heads");
        const wanted = wantedOf(block, map, wise.streams, learning.streams, spec.hiddenSize);
        const through: Texts = { ...learning, streams: learning.streams.slice() };
        await runPart(runner, maskedBy(factors), part, through, (values, first) =>
          sums.add(values, wanted, first, readsFirst ? firsts : undefined),
        );
        const found = tuneMask(await sums.finish());
        if (found === undefined) return { factors, tuned };
        let next = 0;
        for (const [unit, factor] of own.entries()) if (factor !== 0) own[unit] = found[next++];
        tuned.push(`${kind} of block ${layer}`);
      }
      await runPart(runner, maskedBy(factors), part, learning);
    }
    stage.advance(1, `block ${layer}`);
  }
  return { factors, tuned };
}

/** @throws UsageError where attention and feed-forward do not add to the stream one after the other */
export function tunableParts(spec: BlockSpec): BlockPart[] {
  const parts = partsOf(spec);
  if (parts === undefined) {
    throw new UsageError(
      "factors cannot be tuned here: attention and MLP read one stream, or norms follow them; leave it out (tune: false)",
    );
  }
  return parts;
}

/** A block with what its units give multiplied by factors, in the weights behind them. */
function masked(location: string, block: DecoderBlock, factors: Record<UnitType, ArrayLike<number>>) {
  const matrices = new Map(block.matrices);
  for (const { output } of tunableParts(block.spec)) {
    if (output === undefined || factors[output.kind].length === 0) continue;
    const matrix = block.matrices.get(output.map.id)!;
    matrices.set(output.map.id, { ...matrix, weight: scaleUnits(matrix, factors[output.kind]) });
  }
  return loadable(location, { ...block, matrices }, block.spec);
}

/** f32 [rows, cols]: the columns of every unit times its factor. */
export function scaleUnits(
  { weight, cols }: Pick<BlockMatrix, "weight" | "cols">,
  factors: ArrayLike<number>,
): Float32Array {
  const width = cols / factors.length;
  return weight.map((w, i) => w * factors[Math.floor((i % cols) / width)]);
}

/** Numbers of the first tokens of texts. */
function startsOf(lengths: readonly number[]): Set<number> {
  const firsts = new Set<number>();
  let at = 0;
  for (const length of lengths) {
    firsts.add(at);
    at += length;
  }
  return firsts;
}

/** f32 [tokens, hiddenSize]: what the map is to give without its bias, from the stream before it to the teacher's behind it. */
function wantedOf(
  { vectors }: DecoderBlock,
  { bias }: LinearSpec,
  teacher: Float32Array,
  before: Float32Array,
  width: number,
): Float32Array {
  const added = bias === undefined ? undefined : vectors.get(bias)!.values;
  return teacher.map((value, i) => value - before[i] - (added?.[i % width] ?? 0));
}
