import {
  type ByUnit,
  fitLatency,
  type LatencyModel,
  type TimedUnits,
  type UnitType,
} from "../../../compress/internal.js";
import { breathe, median, Random, Stage } from "../../../core/index.js";
import { type DecoderBlock, loadBlock } from "../block.js";
import { loadable } from "../blockSource.js";
import type { Look } from "../look.js";
import { ResultBlocks } from "../resultConfig.js";
import { coupledMatrices, shrinkGroup, sizesWith } from "../stages/cutUnits.js";
import { partsOf } from "./parts.js";
import { chunksOf, LoadedPart } from "./texts.js";

/** Numbers of units that are tried, at most. */
const mostSteps = 12;
/** Runs of each, of which the median counts. */
const repeats = 5;
/** Tokens that are run, in as many texts as that takes. */
const tokensOfRun = 256;

/** What layers of so many units take on this machine, and the models of it. */
export interface TimedLayers {
  tables: ByUnit<TimedUnits[]>;
  models: ByUnit<LatencyModel>;
}

/**
 * Times attention with some of its heads and the MLP with some of its neurons: the first block, cut to its first units, in f32
 * on the backend of the job.
 * @param tokens of a text
 */
export async function timeUnits(look: Look, tokens: number): Promise<TimedLayers> {
  const { blocks: sizes } = look.plan.description.config;
  const stage = new Stage("time layers", 2 * mostSteps, "sizes", look.options.onProgress);
  const table = async (kind: UnitType, all: number): Promise<TimedUnits[]> => {
    const times: TimedUnits[] = [];
    for (const units of stepsTo(all, kind === "heads" ? 1 : 4)) {
      times.push({ units, milliseconds: await timeOf(look, kind, units, Math.max(1, Math.round(tokens))) });
      stage.advance(1, `${units} ${kind}`);
    }
    return times;
  };
  const tables = {
    heads: await table("heads", sizes[0].kvHeads),
    neurons: await table("neurons", sizes[0].intermediateSize),
  };
  return { tables, models: { heads: fitLatency(tables.heads), neurons: fitLatency(tables.neurons) } };
}

/** Numbers up to `all` in equal steps, ascending, multiples of `of`. */
function stepsTo(all: number, of: number): number[] {
  const steps = Math.min(mostSteps, Math.floor(all / of));
  return Array.from({ length: steps }, (_, i) => Math.floor((all * (i + 1)) / steps / of) * of);
}

async function timeOf(look: Look, kind: UnitType, units: number, tokens: number): Promise<number> {
  const { checkpoint, plan, backend, options } = look;
  const { config } = plan.description;
  const block = await loadBlock(checkpoint, config, 0);
  const smaller = firstUnits(block, kind, units);
  const results = new ResultBlocks(
    checkpoint.config,
    config,
    config.blocks.map((_, layer) => layer),
    `${checkpoint.location}/config.json`,
  );
  const cut = loadable(checkpoint.location, smaller, results.at(0, smaller.sizes));
  const part = partsOf(cut.spec)!.find(({ output }) => output?.kind === kind)!;
  const lengths = Array<number>(Math.ceil(tokensOfRun / tokens)).fill(tokens);
  const [chunk] = chunksOf(lengths);
  const random = new Random(0);
  const streams = Float32Array.from({ length: chunk.rows * config.hiddenSize }, () => random.normal());
  using loaded = await LoadedPart.load({ backend: backend!, spec: config.spec }, cut, part, [chunk]);
  const times: number[] = [];
  for (let repeat = 0; repeat <= repeats; repeat++) {
    await breathe(options.signal);
    const again = streams.slice();
    const startMs = performance.now();
    await loaded.run(chunk, again);
    // The first pays for compiling.
    if (repeat > 0) times.push(performance.now() - startMs);
  }
  return median(times) / lengths.length;
}

/** The block with the first of its units of a kind alone. */
function firstUnits(block: DecoderBlock, kind: UnitType, units: number): DecoderBlock {
  const first = Array.from({ length: units }, (_, unit) => unit);
  for (const coupled of coupledMatrices(block, kind)) shrinkGroup(block, coupled, first);
  return { ...block, sizes: sizesWith(block.sizes, kind, units) };
}
