import { kernel, read, readWrite } from "../kernel.js";
import { entry } from "./elementwise.js";

/** See `Backend.morphemeScores`: one thread per score. Morphemes are numbered in f32, which holds them exactly. */
export const morphemeScores = kernel({
  name: "morphemeScores",
  params: {
    cols: "u32",
    order: "u32",
    morphemes: "u32",
    width: "u32",
    rank: "u32",
    run: "u32",
    scaled: "u32",
    accumulate: "u32",
    outOffset: "u32",
    outStride: "u32",
    xOffset: "u32",
    xStride: "u32",
  },
  buffers: { outs: readWrite(), xs: read(), table: read(), places: read(), scales: read() },
  code: entry(/* wgsl */ `
  if (i >= p.cols) { return; }
  let own = i * p.order;
  let source = p.xOffset + row * p.xStride;
  var sum = 0.0;
  for (var k = 0u; k < p.rank; k += 1u) {
    let term = k * p.morphemes;
    let first = source + (term + u32(places[own + p.order - 1u])) * p.run;
    for (var n = 0u; n < p.run; n += 1u) {
      var product = xs[first + n];
      var rest = n;
      for (var j = p.order - 1u; j > 0u; j -= 1u) {
        product *= table[(term + u32(places[own + j - 1u])) * p.width + rest % p.width];
        rest /= p.width;
      }
      sum += product;
    }
  }
  if (p.scaled == 1u) { sum *= scales[i]; }
  let at = p.outOffset + row * p.outStride + i;
  outs[at] = sum + select(0.0, outs[at], p.accumulate == 1u);`),
});
