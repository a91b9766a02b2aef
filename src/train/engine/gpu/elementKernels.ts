import { kernel, read, readWrite } from "../../../kernels/index.js";
import { addTerms } from "./sums.js";

const threads = 64;
/** Element `at` of a dispatch over [x, y] workgroups. */
const begin = /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let at = id.y * groups.x * ${threads}u + id.x;
  if (at >= p.count) { return; }`;

/** Workgroups for so many elements, as a grid that every device takes. */
export function gridOf(count: number): [number, number] {
  const groups = Math.ceil(count / threads);
  const across = Math.min(groups, 32_768);
  return [across, Math.ceil(groups / across)];
}

/** x[i] = table[tokens[i]], rows of `width` vec4. */
export const lookUp = kernel({
  name: "train look up",
  params: { count: "u32", width: "u32", table: "u32" },
  buffers: { x: readWrite("vec4<f32>"), weights: read("vec4<f32>"), tokens: read("u32") },
  code: /* wgsl */ `${begin}
  x[at] = weights[p.table + tokens[at / p.width] * p.width + at % p.width];
}`,
});

/**
 * Row `r` of the sums is Σ x[order[i]] over i from `at` to the next `at`, for pairs [at, r] of `starts` from the first on; rows of
 * `width` vec4.
 */
export const addRows = kernel({
  name: "train add rows",
  params: { count: "u32", width: "u32", result: "u32", first: "u32", accumulate: "u32" },
  buffers: { sums: readWrite("vec4<f32>"), x: read("vec4<f32>"), order: read("u32"), starts: read("u32") },
  code: /* wgsl */ `${begin}
  let pair = 2u * (p.first + at / p.width);
  let column = at % p.width;
  var sum = vec4<f32>();
  let end = starts[pair + 2u];
  ${addTerms("sum", "starts[pair]", "end", (i) => `x[order[${i}] * p.width + column]`)}
  let to = p.result + starts[pair + 1u] * p.width + column;
  if (p.accumulate != 0u) { sum += sums[to]; }
  sums[to] = sum;
}`,
});

/** Turns pair i, i + pairs of each head by the angle of its position, times `direction`; in place. */
export const rotate = kernel({
  name: "train rotate",
  params: { count: "u32", pairs: "u32", heads: "u32", stride: "u32", positions: "u32", direction: "f32" },
  buffers: { x: readWrite(), turns: read() },
  code: /* wgsl */ `${begin}
  let pair = at % p.pairs;
  let head = at / p.pairs % p.heads;
  let row = at / (p.pairs * p.heads);
  let angle = 2u * (row % p.positions * p.pairs + pair);
  let cosine = turns[angle];
  let sine = turns[angle + 1u] * p.direction;
  let first = row * p.stride + head * 2u * p.pairs + pair;
  let a = x[first];
  let b = x[first + p.pairs];
  x[first] = a * cosine - b * sine;
  x[first + p.pairs] = b * cosine + a * sine;
}`,
});

/** x[i] = max(x[i] + table[offset + i mod period], floor): positions or a bias for every row, and relu. In vec4. */
export const addRepeated = kernel({
  name: "train add repeated",
  params: { count: "u32", offset: "u32", period: "u32", floor: "f32" },
  buffers: { x: readWrite("vec4<f32>"), table: read("vec4<f32>") },
  code: /* wgsl */ `${begin}
  x[at] = max(x[at] + table[p.offset + at % p.period], vec4<f32>(p.floor));
}`,
});

/** Gradients of what relu left at 0 become 0. */
export const reluBackward = kernel({
  name: "train relu backward",
  params: { count: "u32" },
  buffers: { gradient: readWrite("vec4<f32>"), result: read("vec4<f32>") },
  code: /* wgsl */ `${begin}
  gradient[at] = select(vec4<f32>(), gradient[at], result[at] > vec4<f32>());
}`,
});

/** silu(gate) ∘ up; both [rows, width] side by side in `gateUp`. */
export const gated = kernel({
  name: "train gated",
  params: { count: "u32", width: "u32" },
  buffers: { hidden: readWrite(), gateUp: read() },
  code: /* wgsl */ `${begin}
  let first = at / p.width * 2u * p.width + at % p.width;
  let gate = gateUp[first];
  hidden[at] = gate / (1.0 + exp(-gate)) * gateUp[first + p.width];
}`,
});

/** dL/d(gate), dL/d(up) side by side, from dL/d(silu(gate) ∘ up). */
export const gatedBackward = kernel({
  name: "train gated backward",
  params: { count: "u32", width: "u32" },
  buffers: { gradient: readWrite(), gateUp: read(), outer: read() },
  code: /* wgsl */ `${begin}
  let first = at / p.width * 2u * p.width + at % p.width;
  let gate = gateUp[first];
  let up = gateUp[first + p.width];
  let share = 1.0 / (1.0 + exp(-gate));
  gradient[first] = outer[at] * up * share * (1.0 + gate * (1.0 - share));
  gradient[first + p.width] = outer[at] * gate * share;
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
