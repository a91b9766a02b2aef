import { kernel, read, readWrite } from "../../../kernels/internal.js";
import { begin as beginElements } from "./elementKernels.js";
import { begin, rowOfGrid, rowThreads, shares, total } from "./rowKernels.js";

/** squares[2·row] = Σ (x − y)², squares[2·row + 1] = Σ y²; rows of the student's x and the teacher's y, of one width. */
export const stateSquares = kernel({
  name: "train squares of states",
  params: { rows: "u32", width: "u32", stride: "u32", teacherStride: "u32" },
  buffers: { squares: readWrite(), x: read(), teacher: read() },
  code: /* wgsl */ `
${shares(rowThreads)}
${total(rowThreads)}
${begin(rowThreads)} {
  let row = ${rowOfGrid};
  if (row >= p.rows) { return; }
  var away = 0.0;
  var theirs = 0.0;
  for (var i = t; i < p.width; i += ${rowThreads}u) {
    let y = teacher[row * p.teacherStride + i];
    let difference = x[row * p.stride + i] - y;
    away += difference * difference;
    theirs += y * y;
  }
  away = total(t, away);
  theirs = total(t, theirs);
  if (t == 0u) {
    squares[2u * row] = away;
    squares[2u * row + 1u] = theirs;
  }
}`,
});

/**
 * measured[offset] = weight · mean (x − y)², over mean y² where it is `relative`; slope = what x − y is multiplied by in the
 * gradient of that. One workgroup.
 */
export const stateDifference = kernel({
  name: "train difference of states",
  params: { rows: "u32", width: "u32", offset: "u32", relative: "u32", weight: "f32" },
  buffers: { measured: readWrite(), slope: readWrite(), squares: read() },
  code: /* wgsl */ `
${shares(rowThreads)}
${total(rowThreads)}
${begin(rowThreads)} {
  var away = 0.0;
  var theirs = 0.0;
  for (var row = t; row < p.rows; row += ${rowThreads}u) {
    away += squares[2u * row];
    theirs += squares[2u * row + 1u];
  }
  away = total(t, away);
  theirs = total(t, theirs);
  let count = f32(p.rows) * f32(p.width);
  let factor = p.weight / select(1.0, theirs / count + 1e-12, p.relative != 0u) / count;
  if (t == 0u && workgroup.x == 0u) {
    measured[p.offset] = factor * away;
    slope[0] = 2.0 * factor;
  }
}`,
});

/** gradient (+)= slope · (state − teacher); the gradient may lie where the state does. */
export const stateGradient = kernel({
  name: "train gradient of states",
  params: {
    count: "u32",
    width: "u32",
    stride: "u32",
    teacherStride: "u32",
    toStride: "u32",
    accumulate: "u32",
  },
  buffers: { gradient: readWrite(), state: read(), teacher: read(), slope: read() },
  code: /* wgsl */ `${beginElements}
  let row = at / p.width;
  let column = at % p.width;
  let to = row * p.toStride + column;
  let own = slope[0] * (state[row * p.stride + column] - teacher[row * p.teacherStride + column]);
  gradient[to] = own + select(0.0, gradient[to], p.accumulate != 0u);
}`,
});
