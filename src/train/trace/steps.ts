import { type ModelSpec, ropeTables, type Step, stepsOf } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { attention, rotate } from "../engine/attention.js";
import { activations, atMost, clamp, sigmoid, softcap } from "../engine/layers.js";
import { add, concatenate, multiply, reshape, type Traced } from "../engine/ops.js";
import { hardName, noiseName } from "../models/controllers.js";
import { clusteredAttention, unturnedName } from "./clusters.js";
import { mixture } from "./mixture.js";
import type { BlockPass } from "./pass.js";
import { controllerMask, convolve, multiplicativeDense } from "./thin.js";

type Tracer<S extends Step> = (step: S, block: BlockPass) => void;

/**
 * What each kind of step is in operations of the autograd engine. A kind that stands here can be trained; one that does not is
 * refused by name. To add one: a line here, and a case in test/train/gradients.test.ts.
 */
export const stepTracers: { readonly [K in Step["do"]]?: Tracer<Extract<Step, { do: K }>> } = {
  norm({ norm, of, into }, { pass, buffers }) {
    buffers.set(into, pass.norm(read(buffers, of), norm));
  },

  linear({ of, maps, add: adds }, { pass, buffers }) {
    const x = read(buffers, of);
    for (const { map, into } of maps) write(buffers, into, pass.project(x, map), adds);
  },

  rotate({ rope, of, every, first, width, pairs }, { pass, buffers }) {
    const tables = ropeTables(rope, width, pass.window);
    for (const name of of) {
      const x = read(buffers, name);
      if (pass.options.clusters !== undefined) buffers.set(unturnedName(name), x);
      const turned = rotate(headsOf(x, every, pass.sequences), tables, { first, width, pairs });
      buffers.set(name, reshape(turned, x.shape));
    }
  },

  join({ heads, of, into }, { pass, buffers }) {
    const parts = of.map(({ buffer, width, heads: own }) => {
      const x = headsOf(read(buffers, buffer), width, pass.sequences);
      return own === heads ? x : concatenate(Array<Traced>(heads / own).fill(x), 2);
    });
    buffers.set(into, reshape(concatenate(parts, 3), [pass.rows, -1]));
  },

  attend(step, block) {
    const { q, k, v, into, kv, scale, sight, softcap: cap, sinks, pruning } = step;
    const { pass, buffers } = block;
    const heads = (name: string, width: number) => headsOf(read(buffers, name), width, pass.sequences);
    if (pass.options.clusters !== undefined) {
      buffers.set(into, clusteredAttention(step, block, heads));
      return;
    }
    const left = pruning ? pass.left(read(buffers, pruning.of), pruning) : block.there;
    const options = { scale, cap, mask: pass.mask(sight), left, sinks: sinks && pass.weight(sinks) };
    buffers.set(into, attention(heads(q, kv.k), heads(k, kv.k), heads(v, kv.v), options));
  },

  activate({ f, of, times, into, clamped }, { buffers }) {
    const x = read(buffers, of);
    const factor = times === undefined ? undefined : read(buffers, times);
    if (clamped !== undefined) {
      const { limit, sharpness } = clamped;
      const gate = atMost(x, limit);
      const gated = multiply(gate, sigmoid(multiply(sharpness, gate)));
      buffers.set(into, factor === undefined ? gated : multiply(gated, add(1, clamp(factor, limit))));
      return;
    }
    const y = activations[f](x);
    buffers.set(into, factor === undefined ? y : multiply(y, factor));
  },

  mixture(step, block) {
    write(block.buffers, step.into, mixture(step, block, traceSteps), step.add);
  },

  multiplicative({ of, maps, add: adds }, { pass, buffers }) {
    const x = read(buffers, of);
    for (const { scales, mixes, into } of maps)
      write(buffers, into, multiplicativeDense(x, pass.weight(scales), pass.weight(mixes.weight)), adds);
  },

  convolve({ of, modules, maps }, { pass, buffers }) {
    const x = read(buffers, of);
    for (const { kernel, length, span: width, into } of maps)
      buffers.set(into, convolve(x, pass.weight(kernel.weight), { window: pass.window, modules, length, width }));
  },

  choose({ of, into, from, block, controller }, { pass, layer, buffers }) {
    const scores = pass.whole(pass.whole(read(buffers, from), controller.down), controller.up);
    const noise = pass.batch[noiseName];
    const given = noise && { noise: noise.ref.slice(layer), hard: pass.batch[hardName] };
    buffers.set(into, multiply(read(buffers, of), controllerMask(scores, block, given)));
  },

  add({ of, into }, { buffers }) {
    write(buffers, into, read(buffers, of), true);
  },

  cap({ of, kind, cap }, { buffers }) {
    const x = read(buffers, of);
    buffers.set(of, kind === "soft" ? softcap(x, cap) : clamp(x, cap));
  },
};

/** Traces steps in their order; the buffers of the block are what they leave. */
export function traceSteps(steps: readonly Step[], block: BlockPass): void {
  for (const step of steps) (stepTracers[step.do] as Tracer<Step>)(step, block);
}

/**
 * @param allowed a head that classifies whole texts, beside one that predicts tokens
 * @throws UsageError that names what of a description cannot be trained
 */
export function refuseUntraced({ modelType, blocks, head }: ModelSpec, allowed?: { classifier: true }): void {
  const refuse = (what: string) => {
    throw new UsageError(`models of the type ${modelType} cannot be trained yet: nothing is known of ${what}`);
  };
  const isAllowed = head.kind === "vocabulary" || (head.kind === "classifier" && allowed?.classifier);
  if (!isAllowed) refuse(`a ${head.kind} as the head of a language model`);
  for (const [b, block] of blocks.entries()) {
    for (const step of stepsOf(block)) {
      if (!Object.hasOwn(stepTracers, step.do)) refuse(`the step "${step.do}" in block ${b}`);
    }
  }
}

function read(buffers: BlockPass["buffers"], name: string): Traced {
  const found = buffers.get(name);
  if (found === undefined) throw new UsageError(`a step reads "${name}", which no step before it has written`);
  return found;
}

const write = (buffers: BlockPass["buffers"], name: string, value: Traced, adds = false) =>
  buffers.set(name, adds ? add(read(buffers, name), value) : value);

/** [sequences, window, heads, width] of x [rows, heads · width]. */
const headsOf = (x: Traced, width: number, sequences: number): Traced =>
  reshape(x, [sequences, x.shape[0] / sequences, x.shape[1] / width, width]);
