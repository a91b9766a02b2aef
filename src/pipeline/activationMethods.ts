import { activationOf, type BlockSpec, costsOf, readersOf } from "../arch/index.js";
import {
  type AllocationId,
  type AllocationRow,
  allocations,
  nearestRow,
  type ThresholdEstimatorId,
  thresholdEstimators,
} from "../compress/index.js";
import type { ActivationSparsity } from "../io/index.js";
import type { Model } from "../model/index.js";
import { BlockProbe, type ProbeRows } from "./blockProbe.js";
import type { LayerHistograms } from "./layerHistograms.js";

/** A method of activation sparsity: "teal" or "cats". */
export type MethodId = ActivationSparsity["method"];
type LayerRecord = ActivationSparsity["layers"][number];

/** What a method has to work with once a layer's activations have been counted. */
export interface LayerContext {
  model: Model;
  layer: number;
  histograms: LayerHistograms;
  /** Requested sparsities. */
  levels: readonly number[];
  estimator: ThresholdEstimatorId;
  allocation: AllocationId;
  /** Greedy: multiplications of a token that one move takes away. */
  base: number;
  /** Greedy: f32 [greedyRows.tokens, hiddenSize] each, what enters the block. */
  greedyInputs: readonly Float32Array[];
  greedyRows: ProbeRows;
  signal?: AbortSignal;
  /** Called with the number of rows that were run through the block. */
  onRows(rows: number): void;
}

interface ActivationMethod {
  /** Where the activations of a block are counted. */
  sites(block: BlockSpec): string[];
  calibrateLayer(context: LayerContext): Promise<CalibratedLayer>;
}

/** One record for each level. */
interface CalibratedLayer {
  records: LayerRecord[];
  /** Those of the uniform allocation, where another was asked for. */
  uniform?: LayerRecord[];
  /** The allocation that `records` were chosen from. */
  rows?: AllocationRow[];
}

/** Every method of activation sparsity. */
export const activationMethods: Readonly<Record<MethodId, ActivationMethod>> = {
  /** Threshold on the input of every linear map: Liu et al., arXiv 2408.14690. */
  teal: {
    sites: (block) => [...readersOf(block)].flatMap(([site, readers]) => (readers.length > 0 ? [site] : [])),
    async calibrateLayer(context) {
      const rows = await allocate(context);
      const records = context.levels.map((level) => ({ maps: cuts(context, nearestRow(rows, level).shares) }));
      if (context.allocation === "uniform") return { records, rows };
      const roles = Object.keys(rows[0].shares);
      const uniform = context.levels.map((level) => ({
        maps: cuts(context, Object.fromEntries(roles.map((role) => [role, level]))),
      }));
      return { records, uniform, rows };
    },
  },
  /**
   * Threshold on the activated gate: Lee et al., arXiv 2404.08763. In an MLP without one it is that of the map behind the
   * activation function, whose input is the activated value itself.
   */
  cats: {
    sites(block) {
      const gate = gateSite(block);
      return gate === undefined ? behindActivation(block).map((role) => siteOf(block, role)) : [gate];
    },
    async calibrateLayer(context) {
      const block = context.model.config.spec.blocks[context.layer];
      const gate = gateSite(block);
      const records = context.levels.map((level) =>
        gate === undefined
          ? { maps: cuts(context, Object.fromEntries(behindActivation(block).map((role) => [role, level]))) }
          : { maps: {}, gate: cut(context, gate, level) },
      );
      return { records };
    },
  },
};

/** Where the gate of a block can be seen; undefined in a block without one. */
function gateSite(block: BlockSpec): string | undefined {
  const step = activationOf(block)?.step;
  return step?.times === undefined ? undefined : step.site?.id;
}

const behindActivation = (block: BlockSpec): string[] => activationOf(block)?.readers ?? [];

const siteOf = (block: BlockSpec, role: string): string =>
  [...readersOf(block)].find(([, readers]) => readers.includes(role))![0];

async function allocate(context: LayerContext): Promise<AllocationRow[]> {
  const { model, layer, greedyInputs, greedyRows } = context;
  using probe = greedyInputs.length > 0 ? await BlockProbe.create(model, layer, greedyInputs, greedyRows) : undefined;
  return await allocations[context.allocation]({
    ...context,
    costs: costsOf(model.config.spec.blocks[layer]),
    async blockError(shares) {
      const found = Object.entries(cuts(context, shares)).map(([role, { threshold }]) => [role, threshold]);
      const error = await probe!.error(Object.fromEntries(found));
      context.onRows(BlockProbe.rowsPerCall(greedyInputs.length, greedyRows));
      return error;
    },
  });
}

/** The thresholds that give maps their shares of zeros, by role. */
function cuts(context: LayerContext, shares: Readonly<Record<string, number>>): LayerRecord["maps"] {
  const block = context.model.config.spec.blocks[context.layer];
  return Object.fromEntries(
    Object.entries(shares).map(([role, share]) => [role, cut(context, siteOf(block, role), share)]),
  );
}

/** The threshold that gives a share of zeros at a place, and the share it gives on what was counted. */
function cut({ histograms, estimator }: LayerContext, site: string, share: number) {
  const histogram = histograms.at(site);
  const threshold = thresholdEstimators[estimator](histogram, share);
  return { threshold, sparsity: histogram.sparsityAt(threshold) };
}
