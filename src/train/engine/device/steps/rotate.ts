import { type RotateStep, ropeTables } from "../../../../arch/index.js";
import { rotate as kernel } from "../elementKernels.js";
import type { Pass } from "../pass.js";
import type { Recording } from "../recording.js";
import { joined, type View } from "../rooms.js";

/** In place, forward and back: the gradient of what was turned is turned back. */
export function rotate({ rope, of, every, first, width, pairs }: RotateStep, recording: Recording): void {
  const { window } = recording;
  const table = recording.table(`turns of ${JSON.stringify([rope, width])}`, () => {
    const { cos, sin } = ropeTables(rope, width, window);
    return Float32Array.from({ length: 2 * cos.length }, (_, i) => (i % 2 === 0 ? cos : sin)[Math.floor(i / 2)]);
  });
  const values = of.map((buffer) => recording.read(buffer));
  const between = pairs === "halves" ? { next: 1, partner: width / 2 } : { next: 2, partner: 1 };
  const turn = (pass: Pass, view: View, direction: 1 | -1) => {
    const { memory, stride, offset = 0 } = pass.rows(view);
    const heads = view.width / every;
    const count = (pass.operations.rows * heads * width) / 2;
    pass.operations.elements(
      kernel,
      {
        count,
        pairs: width / 2,
        heads,
        every,
        stride,
        first: offset + first,
        positions: window,
        direction,
        ...between,
      },
      { x: memory, turns: pass.tables[table] },
    );
  };
  recording.operations.push({
    forward(pass) {
      for (const view of together(values)) turn(pass, view, 1);
    },
    back(gradients) {
      const views = together(values.map((value) => gradients.of(value)));
      return (pass) => {
        for (const view of views) turn(pass, view, -1);
      };
    },
  });
}

/** One view, where they lie side by side. */
const together = (views: readonly View[]): readonly View[] => {
  const one = joined(views);
  return one === undefined ? views : [one];
};
