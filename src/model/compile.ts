import { type BlockSpec, latentAt, latentSteps, type Step } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Backend, ElementFunction } from "../kernels/index.js";
import { fuse } from "./fuse.js";
import { latentAttention } from "./latent.js";
import type { BlockWeights } from "./load.js";
import { mixture } from "./mixture.js";
import { activate, attend, linear, norm, rotate } from "./operations.js";
import { bufferOf, type Operation } from "./pass.js";

/** The operations of a block, in order: each step of its description, or several fused where the backend has that. */
export function compileBlock({ steps }: BlockSpec, weights: BlockWeights, backend: Backend): Operation[] {
  const operations: Operation[] = [];
  for (let s = 0; s < steps.length; ) {
    const absorbed = latentAt(steps, s);
    if (absorbed !== undefined) {
      operations.push(latentAttention(absorbed, weights.latents.get(absorbed.expand)!));
      s += latentSteps;
      continue;
    }
    const fused = fuse(steps, s, weights, backend);
    operations.push(fused?.operation ?? compile(steps[s], weights));
    s += fused?.steps ?? 1;
  }
  return operations;
}

function compile(step: Step, weights: BlockWeights): Operation {
  const lacking = problemOf(step);
  if (lacking !== undefined) throw new UsageError(`${lacking} cannot be run yet`);
  switch (step.do) {
    case "norm":
      return norm(step, weights.norms.get(step)!);
    case "linear":
      return linear(step, weights.stacks.get(step)!);
    case "rotate":
      return rotate(step);
    case "attend":
      return attend(step, weights.sinks.get(step));
    case "activate":
      return activate(step);
    case "mixture":
      return mixture(step, weights.mixtures.get(step)!);
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
