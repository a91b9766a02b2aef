import type { NormSpec, NormStep } from "../../../../arch/index.js";
import { NoKernel } from "../noKernel.js";
import { normKernels } from "../normKernels.js";
import type { Recording } from "../recording.js";
import { isWhole, type View } from "../rooms.js";
import { gridOfRows } from "../rowKernels.js";

export function norm({ norm, of, into }: NormStep, recording: Recording): void {
  recording.write(into, recordNorm(norm, recording.read(of), recording));
}

/** @returns where the normed values lie */
export function recordNorm(spec: NormSpec, x: View, recording: Recording): View {
  const { kind, weight: stored, bias: storedBias, epsilon, plusOne } = spec;
  const weight = recording.place(stored);
  const bias = storedBias && recording.place(storedBias);
  // Their gradients are made together.
  if (bias !== undefined && bias.offset !== weight.offset + weight.rows) throw new NoKernel("a bias that norms share");
  if (kind === "layer" && bias === undefined) throw new NoKernel("layer norms without a bias");
  const { forward, back, sums, statistics: perRun } = normKernels[kind];
  const width = weight.rows;
  /** A row may be normed in runs, a head at a time. */
  const runs = x.width / width;
  const normed = recording.keep("normed", x.width);
  const { room: statistics } = recording.keep("statistics of the norm", runs * perRun);
  const run = { width, runs, weight: weight.offset, plus: plusOne ? 1 : 0 };
  recording.operations.push({
    forward(pass) {
      const { memory, stride, offset = 0 } = pass.rows(x);
      const count = pass.operations.rows * runs;
      pass.operations.dispatch(
        forward,
        { ...run, count, stride, first: offset, epsilon },
        {
          normed: pass.memory(normed.room),
          statistics: pass.memory(statistics),
          x: memory,
          weights: pass.model.weights,
        },
        gridOfRows(count),
      );
    },
    back(gradients) {
      const outer = gradients.of(normed);
      if (!isWhole(outer)) throw new NoKernel("a part of what was normed");
      const { at: gradient, accumulate } = gradients.into(x);
      gradients.release(normed);
      return (pass) => {
        const { operations } = pass;
        const seen = pass.rows(x);
        const buffers = { outer: pass.memory(outer.room), x: seen.memory, statistics: pass.memory(statistics) };
        const place = { stride: seen.stride, first: seen.offset ?? 0 };
        const count = operations.rows * runs;
        operations.sumRows(
          sums,
          buffers,
          { width, rows: count, offset: weight.offset, vectors: perRun },
          { runs, ...place },
        );
        const to = pass.rows(gradient);
        operations.dispatch(
          back,
          { ...run, ...place, count, accumulate: accumulate ? 1 : 0, toStride: to.stride, toFirst: to.offset ?? 0 },
          { ...buffers, gradient: to.memory, weights: pass.model.weights },
          gridOfRows(count),
        );
      };
    },
  });
  return normed;
}
