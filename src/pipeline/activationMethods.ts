import {
  type AllocationId,
  type AllocationRow,
  allocations,
  nearestRow,
  type ThresholdEstimatorId,
  thresholdEstimators,
} from "../compress/index.js";
import type { ActivationSparsity } from "../io/index.js";
import { type Model, type Projection, projections, type TapSite } from "../model/index.js";
import { BlockProbe, type ProbeRows } from "./blockProbe.js";
import { type LayerHistograms, siteOf } from "./layerHistograms.js";

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
  costs: Readonly<Record<Projection, number>>;
  /** Greedy: rise of a projection of cost 1 in one move. */
  base: number;
  /** Greedy: f32 [greedyRows.tokens, hiddenSize] each, what enters the block. */
  greedyInputs: readonly Float32Array[];
  greedyRows: ProbeRows;
  signal?: AbortSignal;
  /** Called with the number of rows that were run through the block. */
  onRows(rows: number): void;
}

interface ActivationMethod {
  /** Where activations are counted. */
  sites: readonly TapSite[];
  calibrateLayer(context: LayerContext): Promise<CalibratedLayer>;
}

/** One record for each level. */
interface CalibratedLayer {
  records: LayerRecord[];
  /** Those of the uniform allocation, where another was asked for. */
  uniform?: LayerRecord[];
  /** The allocation that `records` were chosen from. */
  rows?: AllocationRow<Projection>[];
}

/** Every method of activation sparsity. */
export const activationMethods: Readonly<Record<MethodId, ActivationMethod>> = {
  /** Threshold on the input of every projection: Liu et al., arXiv 2408.14690. */
  teal: {
    sites: ["attentionInput", "attentionOutput", "mlpInput", "mlpHidden"],
    async calibrateLayer(context) {
      const rows = await allocate(context);
      const records = context.levels.map((level) => ({
        maps: cuts(context, nearestRow(rows, level).projections),
      }));
      if (context.allocation === "uniform") return { records, rows };
      const uniform = context.levels.map((level) => ({
        maps: cuts(
          context,
          mapProjections(() => level),
        ),
      }));
      return { records, uniform, rows };
    },
  },
  /** Threshold on the activated gate: Lee et al., arXiv 2404.08763. */
  cats: {
    sites: ["mlpGate"],
    async calibrateLayer({ histograms, levels, estimator }) {
      const gates = histograms.at("mlpGate");
      const records = levels.map((level) => {
        const threshold = thresholdEstimators[estimator](gates, level);
        const gate = { threshold, sparsity: gates.sparsityAt(threshold) };
        return { maps: {}, gate };
      });
      return { records };
    },
  },
};

async function allocate(context: LayerContext): Promise<AllocationRow<Projection>[]> {
  const { model, layer, greedyInputs, greedyRows } = context;
  using probe = greedyInputs.length > 0 ? await BlockProbe.create(model, layer, greedyInputs, greedyRows) : undefined;
  return await allocations[context.allocation]({
    ...context,
    async blockError(shares) {
      const error = await probe!.error(mapProjections((name) => cut(context, name, shares[name]).threshold));
      context.onRows(BlockProbe.rowsPerCall(greedyInputs.length, greedyRows));
      return error;
    },
  });
}

const cuts = (context: LayerContext, shares: Readonly<Record<Projection, number>>) =>
  mapProjections((name) => cut(context, name, shares[name]));

/** The threshold that gives a projection its share of zeros, and the share it gives on what was counted. */
function cut({ histograms, estimator }: LayerContext, projection: Projection, share: number) {
  const histogram = histograms.at(siteOf[projection]);
  const threshold = thresholdEstimators[estimator](histogram, share);
  return { threshold, sparsity: histogram.sparsityAt(threshold) };
}

const mapProjections = <T>(value: (name: Projection) => T) =>
  Object.fromEntries(projections.map((name) => [name, value(name)])) as Record<Projection, T>;
