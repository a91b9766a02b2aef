import { featureName, type MatchedBlocks, type Matching, projectionName } from "../../models/matchingOptions.js";
import { stateDifference, stateGradient, stateSquares } from "./matchingKernels.js";
import { NoKernel } from "./noKernel.js";
import type { Pass } from "./pass.js";
import type { Recording } from "./recording.js";
import { isWhole, type View } from "./rooms.js";
import { gridOfRows } from "./rowKernels.js";

/**
 * What is added to the loss for how far the residual stream behind a block is from its teacher's (`matchedTerms` of the engine): the
 * mean squared difference, through a matrix that is learnt where the widths differ. Recorded behind the block, so that the gradient
 * is added to that of all that reads the stream later.
 * @throws NoKernel for relations, and for widths that are no multiple of four
 */
export function recordMatching(matching: Matching, pair: MatchedBlocks, recording: Recording): void {
  const { hidden, relations, relative, layers, width } = matching;
  if (relations > 0) throw new NoKernel("relations of attention that become like a teacher's");
  if (width.teacher % 4 !== 0) throw new NoKernel("a teacher whose width is no multiple of four");
  const x = recording.read("x");
  if (!isWhole(x)) throw new NoKernel("a part of the residual stream");
  const name = featureName("stream", pair[1]);
  recording.given.set(name, width.teacher);
  const weight = width.student === width.teacher ? undefined : recording.layout.place([projectionName(pair)]);
  const seen: View = weight === undefined ? x : recording.keep("seen by the teacher", weight.rows);
  const squares = recording.share("squares of states", 2);
  const { room: slope } = recording.keep("slope of states", 1, "one");
  const term = recording.measure("matching", 1, true);
  const sizes = { width: width.teacher, relative: relative ? 1 : 0, weight: hidden / layers.length };
  const clear = ({ operations }: Pass, offset: number) => operations.clearGradient({ rows: 1, cols: 1, offset });
  recording.operations.push({
    forward(pass) {
      const { operations, memory, measured, rows } = pass;
      const teacher = pass.given(name);
      const offset = measured + term;
      if (teacher === undefined) return clear(pass, offset);
      if (weight !== undefined) operations.linear(rows(x), weight, rows(seen));
      const params = { rows: operations.rows, width: sizes.width };
      operations.dispatch(
        stateSquares,
        { ...params, stride: seen.stride, teacherStride: teacher.stride },
        { squares: memory(squares), x: memory(seen.room), teacher: teacher.memory },
        gridOfRows(operations.rows),
      );
      const sums = { measured: pass.model.gradients, slope: memory(slope), squares: memory(squares) };
      operations.dispatch(stateDifference, { ...sizes, ...params, offset }, sums, [1]);
    },
    back(gradients) {
      const { at, accumulate } = gradients.into(x);
      if (!accumulate) throw new NoKernel("a residual stream that nothing reads");
      return (pass) => {
        const { operations, memory, rows } = pass;
        const teacher = pass.given(name);
        if (teacher === undefined) {
          if (weight !== undefined) operations.clearGradient(weight);
          return;
        }
        // What the teacher sees becomes its own gradient.
        const to = weight === undefined ? at : seen;
        operations.elements(
          stateGradient,
          {
            count: operations.rows * sizes.width,
            width: sizes.width,
            stride: seen.stride,
            teacherStride: teacher.stride,
            toStride: to.stride,
            accumulate: weight === undefined ? 1 : 0,
          },
          { gradient: memory(to.room), state: memory(seen.room), teacher: teacher.memory, slope: memory(slope) },
        );
        if (weight === undefined) return;
        const [outer, gradient] = [rows(seen), rows(at)];
        operations.weightGradient(outer, weight, rows(x));
        operations.throughWeight(outer, weight, gradient, gradient.memory);
      };
    },
  });
}
