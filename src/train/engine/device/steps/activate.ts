import type { ActivateStep } from "../../../../arch/index.js";
import { activationKernels } from "../activationKernels.js";
import { relu, reluBackward } from "../elementKernels.js";
import { NoKernel } from "../noKernel.js";
import type { Recording } from "../recording.js";
import { isWhole, type View } from "../rooms.js";

export function activate({ f, of, times, into, clamped }: ActivateStep, recording: Recording): void {
  if (clamped !== undefined) throw new NoKernel("clamped gates");
  const x = recording.read(of);
  const factor = times === undefined ? undefined : recording.read(times);
  const inPlace = f === "relu" && factor === undefined && isWhole(x);
  recording.write(into, inPlace ? recordRelu(x, recording) : recordActivation(f, x, factor, recording));
}

function recordActivation(
  f: ActivateStep["f"],
  x: View,
  factor: View | undefined,
  { keep, operations }: Recording,
): View {
  // Their gradients are written by one kernel.
  if (factor !== undefined && factor.room !== x.room) throw new NoKernel("a gate made apart from its factor");
  const kernels = activationKernels[f][factor === undefined ? "plain" : "gated"];
  const { width } = x;
  const y = keep("hidden", width);
  const params = { width, stride: x.stride, first: x.first, factor: factor?.first ?? 0 };
  operations.push({
    forward({ operations, memory }) {
      const count = operations.rows * width;
      operations.elements(kernels.forward, { count, ...params }, { hidden: memory(y.room), x: memory(x.room) });
    },
    back(gradients) {
      const outer = gradients.of(y);
      const at = gradients.first(x);
      if (factor !== undefined) gradients.first(factor);
      gradients.release(y);
      return ({ operations, memory }) => {
        const count = operations.rows * width;
        const buffers = { gradient: memory(at.room), x: memory(x.room), outer: memory(outer.room) };
        operations.elements(kernels.back, { count, ...params }, buffers);
      };
    },
  });
  return y;
}

/** The slope of relu can be told from its result, which takes the place of x. */
function recordRelu(x: View, { operations }: Recording): View {
  operations.push({
    forward: ({ operations, memory }) =>
      operations.elements(relu, { count: operations.rows * x.width }, { x: memory(x.room) }),
    back(gradients) {
      const gradient = gradients.of(x);
      return ({ operations, memory }) => {
        const buffers = { gradient: memory(gradient.room), result: memory(x.room) };
        operations.elements(reluBackward, { count: operations.rows * x.width }, buffers);
      };
    },
  });
  return x;
}
