import { type BlockSpec, type LinearSpec, type Step, unitsOf } from "../../../arch/index.js";
import type { UnitType } from "../../../compress/internal.js";

/** Steps of a block that pass nothing to others but the residual stream. */
export interface BlockPart {
  steps: readonly Step[];
  /** The map at its end, which adds to the stream what heads or neurons give. */
  output?: { kind: UnitType; map: LinearSpec; site: string };
}

/**
 * A block as parts one after another: attention, feed-forward, and what norms of the stream stand between them.
 * @returns undefined where the block does not come apart so: both read the same stream, or a norm follows the map of one
 */
export function partsOf(block: BlockSpec): BlockPart[] | undefined {
  const outputs = new Map<LinearSpec, UnitType>();
  for (const { kind, maps } of unitsOf(block))
    for (const { map, axis } of maps) if (axis === "cols") outputs.set(map, kind);
  const parts: BlockPart[] = [];
  let steps: Step[] = [];
  for (const step of block.steps) {
    // Norms in place, before anything else, are no part of what is added to the stream.
    if (step.do === "norm" && step.of === "x" && step.into === "x" && steps.length === 0) parts.push({ steps: [step] });
    else steps.push(step);
    if (step.do !== "linear") continue;
    const made = step.maps.find(({ map }) => outputs.has(map));
    if (made === undefined) continue;
    if (step.maps.length > 1 || !step.add || made.into !== "x") return undefined;
    parts.push({ steps, output: { kind: outputs.get(made.map)!, map: made.map, site: step.site.id } });
    steps = [];
  }
  if (steps.length > 0) parts.push({ steps });
  return parts.every(readsOwn) ? parts : undefined;
}

/** Whether every buffer that steps read is one that they have written. */
function readsOwn({ steps }: BlockPart): boolean {
  const written = new Set(["x"]);
  return steps.every((step) => {
    const isOwn = readBy(step).every((buffer) => written.has(buffer));
    for (const buffer of writtenBy(step)) written.add(buffer);
    return isOwn;
  });
}

function readBy(step: Step): string[] {
  switch (step.do) {
    case "attend":
      return [step.q, step.k, step.v];
    case "activate":
      return step.times === undefined ? [step.of] : [step.of, step.times];
    case "join":
      return step.of.map(({ buffer }) => buffer);
    case "rotate":
      return [...step.of];
    default:
      return [step.of];
  }
}

function writtenBy(step: Step): string[] {
  if (step.do === "linear") return step.maps.map(({ into }) => into);
  return "into" in step ? [step.into] : [];
}
