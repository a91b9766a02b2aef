import {
  type BlockSpec,
  distinctBlocks,
  type LinearSpec,
  linearsOf,
  type ModelSpec,
  stepsOf,
} from "../../arch/index.js";
import { type Random, UsageError } from "../../core/index.js";
import { rowsOfReference } from "../../io/internal.js";
import { parameterName } from "../models/parameters.js";
import type { Batch, Objective } from "../objective.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";
import type { AdaptedModule, AdapterMethod } from "./contract.js";

/**
 * The modules of a model's blocks that are among the targets: by their last name, as PEFT selects them ("c_attn"), or by the role
 * of a map in them ("q_proj" in any family).
 * @throws UsageError for a target that no module has
 */
export function modulesOf(spec: ModelSpec, targets: readonly string[]): AdaptedModule[] {
  const modules = new Map<string, AdaptedModule & { isTarget: boolean }>();
  const met = new Set<string>();
  const widths = new Map(distinctBlocks(spec).flatMap(headWidths));
  for (const map of distinctBlocks(spec).flatMap(linearsOf)) {
    const { weight, bias, role } = map;
    if (weight.stacked !== undefined) continue;
    const name = weight.tensor.replace(/\.weight$/, "");
    const meant = targets.filter((one) => role === one || name === one || name.endsWith(`.${one}`));
    for (const target of meant) met.add(target);
    const { rows, whole } = rowsOfReference(weight);
    const found = modules.get(name) ?? { name, ...whole, roles: [], pieces: [], isTarget: false };
    modules.set(name, {
      ...found,
      roles: [...found.roles, role],
      pieces: [
        ...found.pieces,
        { parameter: parameterName(weight), rows, headWidth: widths.get(map), bias: bias && parameterName(bias) },
      ],
      isTarget: found.isTarget || meant.length > 0,
    });
  }
  const missing = targets.filter((target) => !met.has(target));
  if (missing.length > 0) {
    const names = new Set(spec.blocks.flatMap(linearsOf).map(({ role }) => role));
    throw new UsageError(`no matrix of the blocks is called ${missing.join(", ")}; there are ${[...names].join(", ")}`);
  }
  return [...modules.values()].filter(({ isTarget }) => isTarget);
}

/** Maps whose outputs are queries, keys or values, with the columns of one head. */
function headWidths(block: BlockSpec): [map: LinearSpec, width: number][] {
  const steps = [...stepsOf(block)];
  const widths = new Map(
    steps.flatMap((step) => {
      if (step.do !== "attend") return [];
      const { q, k, v, kv } = step;
      return [[q, kv.k] as const, [k, kv.k] as const, [v, kv.v] as const];
    }),
  );
  const maps = steps.flatMap((step) => (step.do === "linear" ? step.maps : []));
  return maps.flatMap(({ map, into }) => {
    const width = widths.get(into);
    return width === undefined ? [] : [[map, width]];
  });
}

/** What is learnt beside a model, and the loss as a function of that alone. */
export interface AdaptedObjective extends Objective {
  /** First values of the adapter; what the objective of the model learns beside it is the caller's to add. */
  readonly first: Map<string, FloatArray>;
  /** All weights of the model, those of adapted matrices with what was learnt. The arrays are used again. */
  effective(values: Values): Values;
}

/**
 * Training of an adapter on top of any objective of the whole model: what is multiplied with follows from what is trained, and
 * its gradient from that of the weights. The weights themselves stay.
 * @param frozen all weights of the model; not written to
 * @param keepZeros zeros of adapted matrices stay zeros, whatever is learnt: what a pruned model needs
 */
export function adaptedObjective<Options>(
  base: Objective,
  frozen: Values,
  modules: readonly AdaptedModule[],
  method: AdapterMethod<Options>,
  options: Options,
  random: Random,
  keepZeros = false,
): AdaptedObjective {
  const described = modules.flatMap((module) => method.parameters(module, options, random));
  // What the objective learns beside the model goes through as it is.
  const beside = base.parameters.filter(({ name }) => !frozen.has(name));
  const parameters: ParameterInfo[] = [...described.map(({ first, ...info }) => info), ...beside];
  const all = new Map(frozen);
  const pieces = modules.flatMap((module) =>
    module.pieces.map(({ parameter, rows }) => {
      const weight = frozen.get(parameter);
      if (weight === undefined) {
        throw new UsageError(
          `${parameter} is stored as factors, which an adapter cannot lie beside; train the factors themselves`,
        );
      }
      const mask = keepZeros ? Uint8Array.from(weight, (w) => (w === 0 ? 0 : 1)) : undefined;
      const out = new Float32Array(weight.length);
      all.set(parameter, out);
      return { module, parameter, rows, weight, mask, options, out };
    }),
  );
  for (const module of modules) {
    if (!method.multipliesBias?.(module, options)) continue;
    for (const { bias: parameter, rows } of module.pieces) {
      if (parameter === undefined) continue;
      const weight = frozen.get(parameter)!;
      const out = new Float32Array(weight.length);
      all.set(parameter, out);
      pieces.push({ module: { ...module, cols: 1 }, parameter, rows, weight, mask: undefined, options, out });
    }
  }
  const effective = (values: Values): Values => {
    for (const piece of pieces) method.effective({ ...piece, values }, piece.out);
    for (const { name } of beside) all.set(name, values.get(name)!);
    return all;
  };
  return {
    parameters,
    first: new Map(described.map(({ name, first }) => [name, first])),
    effective,
    async lossAndGradients(values, batch: Batch) {
      const { loss, gradients: outer, measured } = await base.lossAndGradients(effective(values), batch);
      const gradients = new Map<string, FloatArray>(
        parameters.map(({ name }) => [name, new Float32Array(values.get(name)!.length)]),
      );
      for (const piece of pieces) method.pullBack({ ...piece, values }, outer.get(piece.parameter)!, gradients);
      for (const { name } of beside) gradients.set(name, outer.get(name)!);
      return { loss, gradients, measured };
    },
    loss: (values, batch) => base.loss(effective(values), batch),
    predict: (values, batch) => base.predict(effective(values), batch),
    [Symbol.dispose]: () => base[Symbol.dispose](),
  };
}
