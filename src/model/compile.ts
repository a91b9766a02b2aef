import type { BlockSpec, Step } from "../arch/index.js";
import { endOfAttention, latentAt, latentSteps } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { Backend, ElementFunction } from "../kernels/index.js";
import { fuse } from "./fuse.js";
import { latentAttention } from "./latent.js";
import { mixture } from "./mixture.js";
import { activate, attend, linear, norm, rotate } from "./operations.js";
import { bufferOf, type Operation } from "./pass.js";
import type { BlockWeights } from "./weights.js";

/** A block for one backend. */
export interface CompiledBlock {
  /** In order: each step of its description, or several fused where the backend has that. */
  readonly operations: readonly Operation[];
  /** How many of them it takes to store keys and values. */
  readonly keyOperations: number;
  /** How many of them are attention: up to what its projection adds to the residual stream. */
  readonly attentionOperations: number;
  /** Those that each gate of the block is about: from … to − 1. */
  readonly gated: readonly { readonly from: number; readonly to: number }[];
}

export function compileBlock({ steps, gates = [] }: BlockSpec, weights: BlockWeights, backend: Backend): CompiledBlock {
  const operations: Operation[] = [];
  const attentionSteps = endOfAttention(steps);
  const attended = steps.findIndex((step) => step.do === "attend");
  let attentionOperations = 0;
  let keyOperations = 0;
  /** Operations before a step. */
  const before: number[] = [];
  for (let s = 0; s < steps.length; ) {
    before[s] = operations.length;
    const absorbed = latentAt(steps, s);
    if (absorbed !== undefined) {
      operations.push(latentAttention(absorbed, weights.latents.get(absorbed.expand)!));
      s += latentSteps;
    } else {
      const fused = fuse(steps, s, weights, backend);
      operations.push(fused?.operation ?? compile(steps[s], weights));
      s += fused?.steps ?? 1;
    }
    if (s <= attentionSteps) attentionOperations = operations.length;
    if (s > attended && keyOperations === 0) keyOperations = operations.length;
  }
  before[steps.length] = operations.length;
  const gated = gates.map(({ from, to }) => ({ from: before[from], to: before[to] }));
  return { operations, keyOperations, attentionOperations, gated };
}

function compile(step: Step, weights: BlockWeights): Operation {
  const lacking = problemOf(step);
  if (lacking !== undefined) throw new UsageError(`${lacking} cannot be run yet`);
  switch (step.do) {
    case "norm":
      return norm(step, weights.norms.get(step)!);
    case "linear":
      return weights.offloaded.get(step) ?? linear(step, weights.stacks.get(step)!);
    case "rotate":
      return rotate(step);
    case "attend": {
      const sinks = weights.sinks.get(step);
      return weights.prunings.get(step)?.attention(sinks) ?? attend(step, sinks);
    }
    case "activate":
      return activate(step);
    case "mixture":
      return mixture(step, weights.mixtures.get(step)!);
    case "multiplicative":
    case "convolve":
    case "choose":
      return weights.small.get(step)!.operation;
    case "add":
      return (pass) => pass.backend.add(bufferOf(pass, step.into), bufferOf(pass, step.of));
    case "cap":
      return cap(step.of, { f: step.kind === "soft" ? "softcap" : "clamp", by: step.cap });
    default:
      throw new UsageError(`a block with the step "${step.do}" cannot be run yet`);
  }
}

const cap =
  (name: string, f: ElementFunction): Operation =>
  (pass) => {
    const x = bufferOf(pass, name);
    pass.backend.map(x, x, f);
  };

/** What of a description no operation stands for. */
function problemOf(step: Step): string | undefined {
  if (step.do === "mixture") {
    if (!step.add) return "a mixture that is not added to the residual stream";
    const other = step.experts[0].steps.find((inner) => inner.do !== "linear" && inner.do !== "activate");
    if (other !== undefined) return `an expert with the step "${other.do}"`;
  }
  return undefined;
}
