import type { Step } from "../arch/index.js";
import type { Backend } from "../kernels/index.js";
import { isWholeHeads } from "../kernels/internal.js";
import { append, applyActivation, attendTo, attentionOptions, multiply } from "./operations.js";
import { bufferOf, eachPart, type Operation, rowsOf, watch } from "./pass.js";
import type { BlockWeights } from "./weights.js";

/** Several steps as one operation. */
interface Fused {
  operation: Operation;
  /** How many steps it stands for. */
  steps: number;
}

type Peephole = (steps: readonly Step[], weights: BlockWeights, backend: Backend) => Fused | undefined;

/** Operations that some backends have for several steps; the first that fits is taken. */
const peepholes: readonly Peephole[] = [rotatedAttention, gatedLinear, chosenUnits];

/** What stands for the steps from `at` on; undefined where each is enqueued by itself. */
export function fuse(steps: readonly Step[], at: number, weights: BlockWeights, backend: Backend): Fused | undefined {
  const rest = steps.slice(at, at + 3);
  for (const peephole of peepholes) {
    const found = peephole(rest, weights, backend);
    if (found !== undefined) return found;
  }
  return undefined;
}

function rotatedAttention([rotate, attend]: readonly Step[], _: BlockWeights, backend: Backend): Fused | undefined {
  if (backend.rotatedAttention === undefined || rotate?.do !== "rotate" || attend?.do !== "attend") return undefined;
  if (rotate.of.join() !== `${attend.q},${attend.k}` || !isWholeHeads({ ...rotate, headDim: rotate.every }))
    return undefined;
  if (attend.sinks !== undefined || attend.pruning !== undefined) return undefined;
  const operation: Operation = (pass) => {
    const [out, q, k, v] = [attend.into, attend.q, attend.k, attend.v].map((name) => bufferOf(pass, name));
    return eachPart(pass, (part) => {
      const rows = { q: rowsOf(q, part), k: rowsOf(k, part), v: rowsOf(v, part) };
      const { start: position, places, cache } = part;
      const { backend, layer } = pass;
      const table = part.table(rotate);
      if (part.findSight === undefined && !pass.keysOnly && places.length === 1) {
        const options = { ...attentionOptions(attend, part), position };
        backend.rotatedAttention!(rowsOf(out, part), rows, table, cache, layer, options);
        return;
      }
      for (const x of [rows.q, rows.k]) backend.rope(x, table, position);
      append(pass, part, rows.k, rows.v);
      return attendTo(pass, part, attend, { q: rows.q, out: rowsOf(out, part) });
    });
  };
  return { operation, steps: 2 };
}

/** f(gate) ⊙ up inside the product behind it. */
function gatedLinear([gate, down]: readonly Step[], weights: BlockWeights, backend: Backend): Fused | undefined {
  if (
    !backend.fusesGates ||
    gate?.do !== "activate" ||
    gate.times === undefined ||
    gate.clamped ||
    down?.do !== "linear"
  )
    return undefined;
  const stack = weights.stacks.get(down);
  if (gate.into !== down.of || gate.into !== gate.of || stack === undefined || !("matrix" in stack)) return undefined;
  const [up, f] = [gate.times, gate.f];
  const operation: Operation = (pass) => {
    // What is watched, chosen from, or adapted must exist, so that only a backend alone with its values leaves the hidden ones out.
    const wanted = pass.tap !== undefined || pass.thresholds?.inputs !== undefined || pass.adapted.length > 0;
    if (pass.x.rows === 1 && !wanted) {
      const gateThreshold = pass.sparseFromRow === 0 ? pass.thresholds?.gates.get(gate) : undefined;
      multiply(pass, down, stack, { up: bufferOf(pass, up), f, gateThreshold });
      return;
    }
    return watch(pass, gate.site, gate.of, () => {
      applyActivation(pass, gate);
      return watch(pass, down.site, down.of, () => multiply(pass, down, stack));
    });
  };
  return { operation, steps: 2 };
}

/** Units of which few are chosen. */
function chosenUnits([, , choose]: readonly Step[], { small }: BlockWeights): Fused | undefined {
  const operation = choose && small.get(choose)?.whole;
  return operation && { operation, steps: 3 };
}
