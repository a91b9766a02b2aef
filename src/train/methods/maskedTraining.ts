import type { Pattern } from "../../compress/index.js";
import { adamW } from "../optimizers/adamW.js";
import type { Link } from "../optimizers/link.js";
import type { DeviceMethod } from "../resident.js";
import { applyMasks, flips, fullMasks, type MutableMasks } from "../selection/masks.js";
import { keptOfFour } from "../selection/patterns.js";
import { type State, stateOf } from "../state.js";
import type { FloatArray, Values } from "../values.js";
import type { MethodContext, MethodRun } from "./contract.js";

/** What tells one way of training under a changing mask from another. */
export interface MaskRule {
  /** Fills the masks from the dense weights. */
  choose(weights: Values, masks: MutableMasks): void;
  /** Steps between two choices of masks. */
  interval: number;
  /** Turns g = dL/d(effective weight) into the gradient of the dense weight, in place. Default: passes it (STE). */
  gradient?(g: FloatArray, weight: FloatArray, mask: Uint8Array, step: number): void;
  /** Fills `out` with what the forward pass uses in place of the masked parameters. Default: weight ∘ mask. */
  forward?(weights: Values, masks: MutableMasks, out: ReadonlyMap<string, FloatArray>): void;
  /** Optimiser; AdamW by default. */
  link?(masks: MutableMasks): Link;
  /** What it is on a device. */
  device?: Pick<DeviceMethod, "keep" | "forward" | "decays" | "pull" | "squares">;
}

/** A rule for patterns that keep some of every four along a row; undefined for others. */
export function onDevice(
  pattern: Pattern,
  rule: Pick<DeviceMethod, "forward" | "decays" | "pull" | "squares">,
): MaskRule["device"] {
  const keep = keptOfFour(pattern);
  return keep === undefined ? undefined : { keep, ...rule };
}

interface MaskState extends State {
  masks: State;
  first: State;
  chosen: boolean;
  flipRate: number;
  drift: number;
}

function maskedWeights(weights: Values, masks: MutableMasks, out: ReadonlyMap<string, FloatArray>): void {
  for (const [name, mask] of masks) {
    const [from, to] = [weights.get(name)!, out.get(name)!];
    for (let i = 0; i < mask.length; i++) to[i] = mask[i] === 0 ? 0 : from[i];
  }
}

/**
 * Dense weights behind a mask that follows them: min over W of L(W ∘ M(W)). Logs the share of mask entries that change from
 * one choice to the next (flip rate) and since the first choice (drift).
 */
export function maskedTraining(context: MethodContext, rule: MaskRule): MethodRun {
  const { parameters, weights, optimizer } = context;
  const masks = fullMasks(parameters, weights);
  const first = new Map(Array.from(masks, ([name, mask]) => [name, mask.slice()]));
  const entries = Array.from(masks.values()).reduce((sum, mask) => sum + mask.length, 0);
  const forward = rule.forward ?? maskedWeights;
  const seen = new Map<string, FloatArray>(weights);
  for (const name of masks.keys()) seen.set(name, weights.get(name)!.slice());
  const state: MaskState = { masks: stateOf(masks), first: stateOf(first), chosen: false, flipRate: 0, drift: 0 };

  const effective = (current: Values): Values => {
    forward(current, masks, seen);
    return seen;
  };
  return {
    link: rule.link?.(masks) ?? adamW(optimizer),
    state,
    masks,
    refresh(current, step) {
      if (state.chosen && step % rule.interval !== 0) return;
      const old = Array.from(masks.values(), (mask) => mask.slice());
      rule.choose(current, masks);
      let flipped = 0;
      let drifted = 0;
      for (const [k, [name, mask]] of Array.from(masks).entries()) {
        if (!state.chosen) first.get(name)!.set(mask);
        else flipped += flips(old[k], mask);
        drifted += flips(first.get(name)!, mask);
      }
      state.flipRate = flipped / entries;
      state.drift = drifted / entries;
      state.chosen = true;
    },
    effective,
    gradient(gradients, current, step) {
      if (rule.gradient === undefined) return;
      for (const [name, mask] of masks) rule.gradient(gradients.get(name)!, current.get(name)!, mask, step);
    },
    finish(current) {
      if (rule.forward === undefined) return applyMasks(current, masks);
      const last = effective(current);
      for (const name of masks.keys()) current.get(name)!.set(last.get(name)!);
    },
    ...(rule.device && {
      device: {
        ...rule.device,
        interval: rule.interval,
        frozen: false,
        masks,
        first,
        observe(flipRate: number, drift: number) {
          Object.assign(state, { flipRate, drift, chosen: true });
        },
      },
    }),
    metrics: () => ({ flipRate: state.flipRate, drift: state.drift }),
  };
}
