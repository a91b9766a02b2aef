import type { AddStep } from "../../../../arch/index.js";
import { addTo, sumOf } from "../elementKernels.js";
import { NoKernel } from "../noKernel.js";
import type { Recording } from "../recording.js";
import { isWhole } from "../rooms.js";

export function add({ of, into }: AddStep, recording: Recording): void {
  const [term, base] = [recording.read(of), recording.read(into)];
  const { width } = base;
  if (!isWhole(term) || !isWhole(base) || term.width !== width) throw new NoKernel("sums of parts");
  const sum = recording.keep(into, width);
  recording.write(into, sum);
  recording.operations.push({
    forward({ operations, memory }) {
      const buffers = { sum: memory(sum.room), a: memory(base.room), b: memory(term.room) };
      operations.elements(sumOf, { count: operations.rows * width }, buffers);
    },
    back(gradients) {
      const outer = gradients.of(sum);
      gradients.passOn(sum, base);
      const { at, accumulate } = gradients.into(term);
      return ({ operations, memory }) => {
        const params = { count: operations.rows * width, accumulate: accumulate ? 1 : 0 };
        operations.elements(addTo, params, { sum: memory(at.room), x: memory(outer.room) });
      };
    },
  });
}
