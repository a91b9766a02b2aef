import type { MixtureStep, RouterSpec, Step } from "../../../../arch/index.js";
import { loadName } from "../../../models/routerNames.js";
import type { RouterOptions } from "../../../models/routerOptions.js";
import { ExpertRecording } from "../expertRecording.js";
import {
  fromSlots,
  fromSlotsGated,
  gateGradient,
  maxExperts,
  place,
  route,
  routeBackward,
  toSlots,
  toSlotsGated,
} from "../mixtureKernels.js";
import { NoKernel } from "../noKernel.js";
import type { Pass } from "../pass.js";
import type { Recording } from "../recording.js";
import { isWhole, type Room, rowsOf, type Slots, type View } from "../rooms.js";
import { columnSums, gridOfRows } from "../rowKernels.js";

/**
 * A mixture of experts, each of which computes what was sent to it: the choices of all tokens are sorted by expert, the rows of the
 * experts lie one behind the other, and a product has the weights of a row's expert.
 * @param record the steps of an expert
 */
export function mixture(
  step: MixtureStep,
  recording: Recording,
  record: (steps: readonly Step[], recording: Recording) => void,
): void {
  const x = recording.read(step.of);
  const base = step.add && recording.read(step.into);
  if (!isWhole(x) || (base && !isWhole(base))) throw new NoKernel("mixtures of parts");
  const routed = recordRouter(step.router, step.experts.length, x, recording);
  const seen = recordSlots(x, routed, recording);
  const experts = new ExpertRecording(
    recording,
    routed.slots,
    step.experts.map(({ steps }) => steps),
  );
  experts.write(step.of, seen);
  const [{ steps, out }] = step.experts;
  record(steps, experts);
  recording.operations.push(...experts.operationsAt(routed.runs));
  recording.write(step.into, recordSum(experts.read(out), routed, base, recording));
}

/** Which tokens the experts see. */
interface Routed {
  slots: Slots;
  /** f32 [tokens, perToken] */
  gates: View;
  /** u32: see `place`. */
  slotOfPair: Room;
  pairOfSlot: Room;
  runs: Room;
}

/** How experts are chosen and weighed, and the weights of the losses that balance them. */
function routingOf(
  router: RouterSpec,
  { routing = "own", balance = 0, zLoss = 0, normalised }: RouterOptions = {},
): { normalise: boolean; factor: number; balance: number; zLoss: number } {
  const { score, choiceFirst, choiceBias, groups, uniform, normalise, factor = 1 } = router;
  if (routing === "softmax") return { normalise: normalised ?? normalise, factor: 1, balance, zLoss };
  if (routing !== "own" || score !== "softmax" || choiceFirst || choiceBias || groups || uniform) {
    throw new NoKernel("routers but the softmax of all experts");
  }
  return { normalise, factor, balance, zLoss };
}

function recordRouter(router: RouterSpec, experts: number, x: View, recording: Recording): Routed {
  const { map, perToken } = router;
  const { normalise, factor, balance, zLoss } = routingOf(router, recording.options.router);
  if (map.bias !== undefined) throw new NoKernel("routers with a bias");
  if (experts > maxExperts) throw new NoKernel("so many experts");
  const weight = recording.placeRows(map.weight, 4);
  const slots = recording.slotsOf(experts, perToken);
  const logits = recording.keep("router logits", weight.rows);
  const choices = recording.keep("choices", perToken).room;
  const gates = recording.keep("gates", perToken);
  const slotOfPair = recording.keep("slots of choices", perToken).room;
  const pairOfSlot = recording.keep("choices of slots", 1, slots).room;
  const runs = recording.keep("runs of experts", 2 * experts + 1, "one").room;
  const penalties = recording.share("penalties", 1);
  const number = recording.measured.filter(({ isPenalty }) => !isPenalty).length;
  const loads = recording.measure(loadName(number), experts);
  const penalty = balance > 0 || zLoss > 0 ? recording.measure("penalty", 1, true) : undefined;
  const params = { stride: weight.rows, experts, perToken, normalise: normalise ? 1 : 0, factor };
  recording.operations.push({
    forward({ operations, sequences, window, measured, rows, memory, model }) {
      const count = operations.rows;
      operations.linear(rows(x), weight, rows(logits));
      const chosen = { choices: memory(choices), gates: memory(gates.room), logits: memory(logits.room) };
      operations.elements(route, { count, ...params }, chosen);
      operations.dispatch(
        place,
        { pairs: count * perToken, experts, rows: rowsOf(slots, sequences, window), loads: measured + loads },
        {
          slots: memory(slotOfPair),
          pairs: memory(pairOfSlot),
          runs: memory(runs),
          measured: model.gradients,
          choices: memory(choices),
        },
        [experts],
      );
    },
    back(gradients) {
      const outer = gradients.of(gates);
      const { at, accumulate } = gradients.into(x);
      gradients.release(gates);
      return ({ operations, measured, rows, memory }) => {
        const count = operations.rows;
        operations.elements(
          routeBackward,
          { count, ...params, balance: (balance * experts) / (perToken * count ** 2), z: zLoss / count },
          {
            logits: memory(logits.room),
            penalties: memory(penalties),
            outer: memory(outer.room),
            gates: memory(gates.room),
            choices: memory(choices),
            runs: memory(runs),
          },
        );
        if (penalty !== undefined) {
          const sum = { width: 1, offset: measured + penalty };
          operations.sumRows(columnSums, { outer: memory(penalties) }, sum, {});
        }
        const [dy, dx] = [rows(logits), rows(at)];
        operations.weightGradient(dy, weight, rows(x));
        operations.throughWeight(dy, weight, dx, accumulate ? dx.memory : undefined);
      };
    },
  });
  return { slots, gates, slotOfPair, pairOfSlot, runs };
}

/** The rows of the tokens that chose each expert. */
function recordSlots(x: View, { slots, slotOfPair, pairOfSlot }: Routed, recording: Recording): View {
  const seen = recording.keep("seen by experts", x.width, slots);
  const params = { width: x.width / 4, perToken: slots.perToken };
  recording.operations.push({
    forward({ operations, sequences, window, memory }) {
      const count = rowsOf(slots, sequences, window) * params.width;
      const buffers = { y: memory(seen.room), x: memory(x.room), pairs: memory(pairOfSlot) };
      operations.elements(toSlots, { count, ...params }, buffers);
    },
    back(gradients) {
      const outer = gradients.of(seen);
      const { at, accumulate } = gradients.into(x);
      gradients.release(seen);
      return ({ operations, memory }) => {
        const count = operations.rows * params.width;
        const buffers = { y: memory(at.room), x: memory(outer.room), slots: memory(slotOfPair) };
        operations.elements(fromSlots, { count, ...params, accumulate: accumulate ? 1 : 0 }, buffers);
      };
    },
  });
  return seen;
}

/** What the chosen experts give for each token, weighed by its gates. */
function recordSum(given: View, routed: Routed, base: View | undefined, recording: Recording): View {
  const { slots, gates, slotOfPair, pairOfSlot } = routed;
  if (!isWhole(given)) throw new NoKernel("a part of what experts give");
  const { perToken } = slots;
  const sum = recording.keep("sum of experts", given.width);
  const params = { width: given.width / 4, perToken };
  const factors = ({ memory }: Pass) => ({ slots: memory(slotOfPair), gates: memory(gates.room) });
  recording.operations.push({
    forward(pass) {
      const { operations, memory } = pass;
      const y = memory(sum.room);
      const buffers = { y, x: memory(given.room), ...factors(pass), base: base ? memory(base.room) : y };
      const count = operations.rows * params.width;
      operations.elements(fromSlotsGated, { count, ...params, add: base ? 1 : 0 }, buffers);
    },
    back(gradients) {
      const outer = gradients.of(sum);
      if (base !== undefined) gradients.passOn(sum, base);
      const [ofGiven, ofGates] = [gradients.first(given), gradients.first(gates)];
      if (base === undefined) gradients.release(sum);
      return ({ operations, sequences, window, memory }) => {
        const pairs = operations.rows * perToken;
        operations.dispatch(
          gateGradient,
          { count: pairs, width: given.width, perToken },
          {
            gradient: memory(ofGates.room),
            outer: memory(outer.room),
            x: memory(given.room),
            slots: memory(slotOfPair),
          },
          gridOfRows(pairs),
        );
        operations.elements(
          toSlotsGated,
          { count: rowsOf(slots, sequences, window) * params.width, ...params },
          {
            y: memory(ofGiven.room),
            x: memory(outer.room),
            pairs: memory(pairOfSlot),
            gates: memory(gates.room),
          },
        );
      };
    },
  });
  return sum;
}
