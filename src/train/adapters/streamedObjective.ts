import { linearsOf, type ModelSpec } from "../../arch/index.js";
import { type Random, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import { type EngineDevice, startEngine } from "../engine/engine.js";
import { parameterName } from "../models/parameters.js";
import type { Batch } from "../objective.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";
import type { AdaptedObjective } from "./adaptedObjective.js";
import type { AdaptedModule, AdapterMethod } from "./contract.js";

/** Where the weights of an adapter that is trained come from, and in which windows text goes through them. */
export interface StreamedBase {
  checkpoint: Checkpoint;
  spec: ModelSpec;
  /** Tokens of a window. */
  window: number;
  device: EngineDevice;
}

/** @throws UsageError where what is learnt would multiply a bias, which stays as it is stored */
function refuseBias<Options>(module: AdaptedModule, method: AdapterMethod<Options>, options: Options): void {
  const biased = module.pieces.find(({ bias }) => bias !== undefined);
  if (biased === undefined || !method.multipliesBias?.(module, options)) return;
  throw new UsageError(
    `${method.title} multiplies what ${module.name} gives, its bias ${biased.bias} too, and \`stream\` changes matrices alone: train without \`stream\`, ` +
      "or name the module among inputsOf",
  );
}

/**
 * As `adaptedObjective` over weights that stay as they are stored, as codes of 4 bits for instance (QLoRA: Dettmers et al. 2023,
 * arXiv:2305.14314): a block is decoded when a text runs through it, forward and back, so that memory holds one block and what enters
 * each. Every step decodes the model twice.
 */
export async function streamedObjective<Options>(
  { checkpoint, spec, window, device }: StreamedBase,
  modules: readonly AdaptedModule[],
  method: AdapterMethod<Options>,
  options: Options,
  random: Random,
): Promise<AdaptedObjective> {
  await startEngine(device);
  const { BlockwiseModel } = await import("../trace/backpropagation.js");
  const described = modules.flatMap((module) => method.parameters(module, options, random));
  const parameters: ParameterInfo[] = described.map(({ first, ...info }) => info);
  for (const module of modules) refuseBias(module, method, options);
  const pieces = modules.flatMap((module) => module.pieces.map((piece) => ({ module, ...piece, options })));
  const piecesOf = spec.blocks.map((block) =>
    linearsOf(block).flatMap(({ id, weight }) =>
      pieces.filter(({ parameter }) => parameter === parameterName(weight)).map((piece) => ({ ...piece, id })),
    ),
  );
  let values: Values = new Map();
  // Of the block that was decoded last.
  let originals = new Map<string, FloatArray>();
  const model = new BlockwiseModel(checkpoint, spec, window, (layer, weights) => {
    originals = new Map(piecesOf[layer].map(({ id }) => [id, weights.get(id)!.slice()]));
    for (const { id, ...piece } of piecesOf[layer])
      method.effective({ ...piece, weight: originals.get(id)!, values }, weights.get(id)!);
  });
  const windowsOf = ({ tokens, label }: Batch) => ({
    tokens: Uint32Array.from(tokens.values),
    window,
    next: Int32Array.from(label.values),
  });
  return {
    parameters,
    first: new Map(described.map(({ name, first }) => [name, first])),
    effective: () => new Map(),
    async lossAndGradients(now, batch) {
      values = now;
      const gradients = new Map<string, FloatArray>(
        parameters.map(({ name }) => [name, new Float32Array(now.get(name)!.length)]),
      );
      let loss = Number.NaN;
      const windows = windowsOf(batch);
      const told = model.backpropagate(windows, {
        together: windows.tokens.length / window,
        onLoss: (found) => {
          loss = found;
        },
        visit(layer, outer) {
          for (const { id, ...piece } of piecesOf[layer])
            method.pullBack({ ...piece, weight: originals.get(id)!, values }, outer.get(id)!, gradients);
        },
      });
      // Each block is told of on its way.
      for await (const _ of told);
      return { loss, gradients, measured: new Map() };
    },
    loss(now, batch) {
      values = now;
      return model.loss(windowsOf(batch));
    },
    predict() {
      throw new UsageError("a model that is decoded block by block is trained on texts alone, and by no teacher");
    },
    [Symbol.dispose]: () => model[Symbol.dispose](),
  };
}
