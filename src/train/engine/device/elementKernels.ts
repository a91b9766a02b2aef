import { kernel, read, readWrite } from "../../../kernels/internal.js";
import { gridOfRows } from "./rowKernels.js";
import { addTerms } from "./sums.js";

const threads = 64;
/** Begins an element-wise kernel: element `at` of a dispatch over [x, y] workgroups. */
export const begin = /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let at = id.y * groups.x * ${threads}u + id.x;
  if (at >= p.count) { return; }`;

/** Workgroups for so many elements, as a grid that every device takes. */
export const gridOf = (count: number): [number, number] => gridOfRows(Math.ceil(count / threads));

/** x[i] = scale · table[tokens[i]], rows of `width` vec4. */
export const lookUp = kernel({
  name: "train look up",
  params: { count: "u32", width: "u32", table: "u32", scale: "f32" },
  buffers: { x: readWrite("vec4<f32>"), weights: read("vec4<f32>"), tokens: read("u32") },
  code: /* wgsl */ `${begin}
  x[at] = p.scale * weights[p.table + tokens[at / p.width] * p.width + at % p.width];
}`,
});

/**
 * Row `r` of the sums is scale · Σ x[order[i]] over i from `at` to the next `at`, for pairs [at, r] of `starts` from the first on; rows of
 * `width` vec4.
 */
export const addRows = kernel({
  name: "train add rows",
  params: { count: "u32", width: "u32", result: "u32", first: "u32", accumulate: "u32", scale: "f32" },
  buffers: { sums: readWrite("vec4<f32>"), x: read("vec4<f32>"), order: read("u32"), starts: read("u32") },
  code: /* wgsl */ `${begin}
  let pair = 2u * (p.first + at / p.width);
  let column = at % p.width;
  var sum = vec4<f32>();
  let end = starts[pair + 2u];
  ${addTerms("sum", "starts[pair]", "end", (i) => `x[order[${i}] * p.width + column]`)}
  sum *= p.scale;
  let to = p.result + starts[pair + 1u] * p.width + column;
  if (p.accumulate != 0u) { sum += sums[to]; }
  sums[to] = sum;
}`,
});

/**
 * Turns pairs of each head, which has `every` columns, by the angle of its position, times `direction`; in place. Pair i is
 * column `first` + i · `next` and the one `partner` behind it.
 */
export const rotate = kernel({
  name: "train rotate",
  params: {
    count: "u32",
    pairs: "u32",
    heads: "u32",
    every: "u32",
    stride: "u32",
    first: "u32",
    next: "u32",
    partner: "u32",
    positions: "u32",
    direction: "f32",
  },
  buffers: { x: readWrite(), turns: read() },
  code: /* wgsl */ `${begin}
  let pair = at % p.pairs;
  let head = at / p.pairs % p.heads;
  let row = at / (p.pairs * p.heads);
  let angle = 2u * (row % p.positions * p.pairs + pair);
  let cosine = turns[angle];
  let sine = turns[angle + 1u] * p.direction;
  let first = row * p.stride + p.first + head * p.every + pair * p.next;
  let a = x[first];
  let b = x[first + p.partner];
  x[first] = a * cosine - b * sine;
  x[first + p.partner] = b * cosine + a * sine;
}`,
});

/** sum = a + b */
export const sumOf = kernel({
  name: "train sum",
  params: { count: "u32" },
  buffers: { sum: readWrite(), a: read(), b: read() },
  code: /* wgsl */ `${begin}
  sum[at] = a[at] + b[at];
}`,
});

/** sum (+)= x */
export const addTo = kernel({
  name: "train add to",
  params: { count: "u32", accumulate: "u32" },
  buffers: { sum: readWrite(), x: read() },
  code: /* wgsl */ `${begin}
  sum[at] = x[at] + select(0.0, sum[at], p.accumulate != 0u);
}`,
});

/** x[i] += table[offset + i mod period]: positions or a bias for every row. In vec4. */
export const addRepeated = kernel({
  name: "train add repeated",
  params: { count: "u32", offset: "u32", period: "u32" },
  buffers: { x: readWrite("vec4<f32>"), table: read("vec4<f32>") },
  code: /* wgsl */ `${begin}
  x[at] += table[p.offset + at % p.period];
}`,
});

/** x = max(x, 0), in place. */
export const relu = kernel({
  name: "train relu in place",
  params: { count: "u32" },
  buffers: { x: readWrite() },
  code: /* wgsl */ `${begin}
  x[at] = max(x[at], 0.0);
}`,
});

/** Gradients of what relu left at 0 become 0. */
export const reluBackward = kernel({
  name: "train relu in place backward",
  params: { count: "u32" },
  buffers: { gradient: readWrite(), result: read() },
  code: /* wgsl */ `${begin}
  gradient[at] = select(0.0, gradient[at], result[at] > 0.0);
}`,
});

/** sums[offset + i] = Σ over parts of parts[part · count + i]. */
export const sumParts = kernel({
  name: "train sum parts",
  params: { count: "u32", parts: "u32", offset: "u32" },
  buffers: { sums: readWrite(), parts: read() },
  code: /* wgsl */ `${begin}
  var sum = 0.0;
  ${addTerms("sum", "0u", "p.parts", (part) => `parts[${part} * p.count + at]`)}
  sums[p.offset + at] = sum;
}`,
});
