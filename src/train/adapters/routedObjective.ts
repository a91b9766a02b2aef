import { type ModelSpec, stepsOf } from "../../arch/index.js";
import { type Random, UsageError } from "../../core/index.js";
import { addedOutput, sharedInput } from "../../model/internal.js";
import { type EngineDevice, startEngine } from "../engine/engine.js";
import type { TracedArrays } from "../engine/tracedObjective.js";
import { parameterName } from "../models/parameters.js";
import type { Batch, BatchArray } from "../objective.js";
import type { TracedAdaptation } from "../trace/adaptation.js";
import type { TraceOptions } from "../trace/options.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";
import type { AdaptedObjective } from "./adaptedObjective.js";
import type { AdaptedModule, RoutedAdapterMethod } from "./contract.js";

/** The model that a mixture of adapters is trained beside. */
export interface RoutedBase {
  spec: ModelSpec;
  /** Of `modelParameters`. */
  parameters: readonly ParameterInfo[];
  /** All weights of the model; not written to. */
  frozen: Values;
  /** Tokens of every sequence. */
  window: number;
  device: EngineDevice;
  /** What it is trained on beside its text. */
  options?: TraceOptions;
}

/** What can be trained should also be run. @throws UsageError for what the runtime refuses beside its weights */
function checkPlaces({ blocks }: ModelSpec, adapted: ReadonlyMap<string, TracedAdaptation>): void {
  for (const block of blocks) {
    const outside = new Set(block.steps);
    for (const step of stepsOf(block)) {
      if (step.do !== "linear") continue;
      for (const { map } of step.maps) {
        const own = adapted.get(parameterName(map.weight));
        const { tensor } = map.weight;
        if (own === undefined) continue;
        if (!outside.has(step)) throw new UsageError(`${tensor} is of an expert, which no mixture stands beside`);
        if (own.inputs !== undefined && step.maps.length > 1) throw new UsageError(sharedInput(tensor));
        if (own.rescales && own.outputs !== undefined && step.add) throw new UsageError(addedOutput(tensor));
      }
    }
  }
}

/**
 * Training of an adapter that weighs its experts for every token: the whole model is traced with it, and the gradient of its
 * numbers alone is asked for.
 * @throws DeviceError, UsageError that names what of the description cannot be trained
 */
export async function routedObjective<Options>(
  { spec, parameters, frozen, window, device, options: traceOptions }: RoutedBase,
  modules: readonly AdaptedModule[],
  method: RoutedAdapterMethod<Options>,
  options: Options,
  random: Random,
): Promise<AdaptedObjective> {
  const adapted = new Map(
    modules.flatMap((module) =>
      module.pieces.map(({ parameter }, piece) => {
        return [parameter, method.trace(module, piece, options) as TracedAdaptation] as const;
      }),
    ),
  );
  checkPlaces(spec, adapted);
  await startEngine(device);
  const [{ tracedObjective }, { traceModel }] = await Promise.all([
    import("../engine/tracedObjective.js"),
    import("../trace/trace.js"),
  ]);
  const described = modules.flatMap((module) => method.parameters(module, options, random));
  const own: ParameterInfo[] = described.map(({ first, ...info }) => info);
  const model = traceModel(spec, [...parameters, ...own], window, { ...traceOptions, adapted });
  const weightsIn = (weights: TracedArrays, batch: TracedArrays) => ({ ...batch, ...weights });
  // Weights that stay go in as arrays of the batch do: no gradient is asked for them.
  const fixed: Record<string, BatchArray> = {};
  for (const { name, shape } of parameters) fixed[name] = { shape, values: frozen.get(name)! };
  const objective = tracedObjective({
    parameters: own,
    predict: (weights, batch) => model.predict(weightsIn(weights, batch), batch),
    loss: (weights, batch) => model.loss(weightsIn(weights, batch), batch),
  });
  const all = (batch: Batch): Batch => ({ ...batch, ...fixed });
  return {
    parameters: own,
    first: new Map<string, FloatArray>(described.map(({ name, first }) => [name, first])),
    effective: () => frozen,
    lossAndGradients: (values, batch) => objective.lossAndGradients(values, all(batch)),
    loss: (values, batch) => objective.loss(values, all(batch)),
    predict: (values, batch) => objective.predict(values, all(batch)),
    [Symbol.dispose]: () => objective[Symbol.dispose](),
  };
}
