import { kernel, read, readWrite } from "../../../kernels/internal.js";
import { begin as beginElements } from "./elementKernels.js";
import { tileRows } from "./gemm.js";
import { begin, rowOfGrid, rowThreads, shares, total } from "./rowKernels.js";

/** Experts of a mixture, at most: a workgroup counts the tokens of all. */
export const maxExperts = 1024;
/** In place of the number of a choice: the slot is only filled up. */
const none = "0xffffffffu";

/** Softmax of a row of logits: `top` and `sum` make e^(logit − top) / sum. */
const softmax = /* wgsl */ `
  let row = at * p.stride;
  var top = -3.0e38;
  for (var e = 0u; e < p.experts; e += 1u) { top = max(top, logits[row + e]); }
  var sum = 0.0;
  for (var e = 0u; e < p.experts; e += 1u) { sum += exp(logits[row + e] - top); }`;

const routing = {
  count: "u32",
  stride: "u32",
  experts: "u32",
  perToken: "u32",
  normalise: "u32",
  factor: "f32",
} as const;

/** The experts with the `perToken` largest logits of every token, the first of equals, and their softmax as gates. */
export const route = kernel({
  name: "train route",
  params: routing,
  buffers: { choices: readWrite("u32"), gates: readWrite(), logits: read() },
  code: /* wgsl */ `${beginElements}
  ${softmax}
  let first = at * p.perToken;
  var chosen = 0.0;
  var last = 0.0;
  var lastChoice = 0u;
  for (var j = 0u; j < p.perToken; j += 1u) {
    var best = -3.0e38;
    var choice = 0u;
    for (var e = 0u; e < p.experts; e += 1u) {
      let logit = logits[row + e];
      let isOpen = j == 0u || logit < last || (logit == last && e > lastChoice);
      if (isOpen && logit > best) {
        best = logit;
        choice = e;
      }
    }
    let score = exp(best - top) / sum;
    choices[first + j] = choice;
    gates[first + j] = score;
    chosen += score;
    last = best;
    lastChoice = choice;
  }
  let scale = p.factor / select(1.0, chosen, p.normalise != 0u);
  for (var j = 0u; j < p.perToken; j += 1u) { gates[first + j] *= scale; }
}`,
});

/**
 * Logits become their gradient, from that of the gates, of balance · Σₑ loadₑ · scoreₑ and of z · logsumexp², whose sum for each
 * token goes to `penalties`.
 */
export const routeBackward = kernel({
  name: "train route backward",
  params: { ...routing, balance: "f32", z: "f32" },
  buffers: {
    logits: readWrite(),
    penalties: readWrite(),
    outer: read(),
    gates: read(),
    choices: read("u32"),
    runs: read("u32"),
  },
  code: /* wgsl */ `
fn load(e: u32) -> f32 { return f32(runs[p.experts + 1u + e]); }
${beginElements}
  ${softmax}
  let first = at * p.perToken;
  let isNormalised = p.normalise != 0u;
  var chosen = 0.0;
  var mean = 0.0;
  for (var j = first; j < first + p.perToken; j += 1u) {
    chosen += exp(logits[row + choices[j]] - top) / sum;
    mean += gates[j] * outer[j];
  }
  mean = select(0.0, mean, isNormalised);
  let scale = 1.0 / select(1.0, chosen, isNormalised);
  var dot = 0.0;
  for (var j = first; j < first + p.perToken; j += 1u) {
    dot += exp(logits[row + choices[j]] - top) / sum * scale * (p.factor * outer[j] - mean);
  }
  var penalty = 0.0;
  for (var e = 0u; e < p.experts; e += 1u) { penalty += exp(logits[row + e] - top) / sum * p.balance * load(e); }
  let size = top + log(sum);
  penalties[at] = penalty + p.z * size * size;
  for (var e = 0u; e < p.experts; e += 1u) {
    var slope = p.balance * load(e) - penalty - dot + 2.0 * p.z * size;
    for (var j = first; j < first + p.perToken; j += 1u) {
      if (choices[j] == e) { slope += scale * (p.factor * outer[j] - mean); }
    }
    logits[row + e] = exp(logits[row + e] - top) / sum * slope;
  }
  for (var e = p.experts; e < p.stride; e += 1u) { logits[row + e] = 0.0; }
}`,
});

const placeThreads = 256;

/**
 * Sorts the choices of tokens by expert, each in its order: `slots` says where a choice goes and `pairs` which one a slot has. The
 * slots of an expert begin at a tile, as `runs` [experts + 1] says, before the loads of all. One workgroup for each expert.
 */
export const place = kernel({
  name: "train place",
  params: { pairs: "u32", experts: "u32", rows: "u32", loads: "u32" },
  buffers: {
    slots: readWrite("u32"),
    pairs: readWrite("u32"),
    runs: readWrite("u32"),
    measured: readWrite(),
    choices: read("u32"),
  },
  code: /* wgsl */ `
var<workgroup> loads: array<atomic<u32>, ${maxExperts}>;
var<workgroup> before: array<u32, ${placeThreads}>;

fn filledUp(load: u32) -> u32 { return (load + ${tileRows - 1}u) / ${tileRows}u * ${tileRows}u; }

${begin(placeThreads)} {
  let own = workgroup.x;
  // Dawn is told not to clear the memory of workgroups.
  for (var e = t; e < p.experts; e += ${placeThreads}u) { atomicStore(&loads[e], 0u); }
  workgroupBarrier();
  for (var i = t; i < p.pairs; i += ${placeThreads}u) { atomicAdd(&loads[choices[i]], 1u); }
  workgroupBarrier();
  var start = 0u;
  for (var e = 0u; e < own; e += 1u) { start += filledUp(atomicLoad(&loads[e])); }
  let load = atomicLoad(&loads[own]);
  var end = start + filledUp(load);
  if (t == 0u) {
    runs[own] = start;
    runs[p.experts + 1u + own] = load;
    measured[p.loads + own] = f32(load);
    if (own + 1u == p.experts) { runs[p.experts] = end; }
  }
  if (own + 1u == p.experts) { end = p.rows; }
  var next = start;
  for (var first = 0u; first < p.pairs; first += ${placeThreads}u) {
    let i = first + t;
    let isOwn = i < p.pairs && choices[min(i, p.pairs - 1u)] == own;
    before[t] = select(0u, 1u, isOwn);
    workgroupBarrier();
    for (var reach = 1u; reach < ${placeThreads}u; reach *= 2u) {
      let more = select(0u, before[max(t, reach) - reach], t >= reach);
      workgroupBarrier();
      before[t] += more;
      workgroupBarrier();
    }
    if (isOwn) {
      let slot = next + before[t] - 1u;
      slots[i] = slot;
      pairs[slot] = i;
    }
    next += before[${placeThreads - 1}u];
    workgroupBarrier();
  }
  for (var slot = start + load + t; slot < end; slot += ${placeThreads}u) { pairs[slot] = ${none}; }
}`,
});

/** Rows of `width` vec4. */
const rows = { count: "u32", width: "u32", perToken: "u32" } as const;

/** What of a slot: the token that chose it. Slots that are only filled up are 0. */
export const toSlots = kernel({
  name: "train to slots",
  params: rows,
  buffers: { y: readWrite("vec4<f32>"), x: read("vec4<f32>"), pairs: read("u32") },
  code: /* wgsl */ `${beginElements}
  let pair = pairs[at / p.width];
  let isFilling = pair == ${none};
  let token = select(pair / p.perToken, 0u, isFilling);
  y[at] = select(x[token * p.width + at % p.width], vec4<f32>(), isFilling);
}`,
});

/** As `toSlots`, times the gates. */
export const toSlotsGated = kernel({
  name: "train to slots gated",
  params: rows,
  buffers: { y: readWrite("vec4<f32>"), x: read("vec4<f32>"), pairs: read("u32"), gates: read() },
  code: /* wgsl */ `${beginElements}
  let pair = pairs[at / p.width];
  let isFilling = pair == ${none};
  let seen = select(pair, 0u, isFilling);
  y[at] = select(gates[seen] * x[seen / p.perToken * p.width + at % p.width], vec4<f32>(), isFilling);
}`,
});

/** y (+)= Σ of the slots that a token chose. */
export const fromSlots = kernel({
  name: "train from slots",
  params: { ...rows, accumulate: "u32" },
  buffers: { y: readWrite("vec4<f32>"), x: read("vec4<f32>"), slots: read("u32") },
  code: /* wgsl */ `${beginElements}
  let first = at / p.width * p.perToken;
  var sum = vec4<f32>();
  for (var j = first; j < first + p.perToken; j += 1u) { sum += x[slots[j] * p.width + at % p.width]; }
  if (p.accumulate != 0u) { sum += y[at]; }
  y[at] = sum;
}`,
});

/** y = Σ of the slots that a token chose, each times its gate, + base where it is added. */
export const fromSlotsGated = kernel({
  name: "train from slots gated",
  params: { ...rows, add: "u32" },
  buffers: {
    y: readWrite("vec4<f32>"),
    x: read("vec4<f32>"),
    slots: read("u32"),
    gates: read(),
    base: read("vec4<f32>"),
  },
  code: /* wgsl */ `${beginElements}
  let first = at / p.width * p.perToken;
  var sum = vec4<f32>();
  for (var j = first; j < first + p.perToken; j += 1u) { sum += gates[j] * x[slots[j] * p.width + at % p.width]; }
  if (p.add != 0u) { sum += base[at]; }
  y[at] = sum;
}`,
});

/** The gradient of every gate: dy of its token · x of its slot, rows of `width` f32. One workgroup for each. */
export const gateGradient = kernel({
  name: "train gate gradient",
  params: rows,
  buffers: { gradient: readWrite(), outer: read(), x: read(), slots: read("u32") },
  code: /* wgsl */ `
${shares(rowThreads)}
${total(rowThreads)}
${begin(rowThreads)} {
  let pair = ${rowOfGrid};
  if (pair >= p.count) { return; }
  let row = pair / p.perToken * p.width;
  let slot = slots[pair] * p.width;
  var dot = 0.0;
  for (var i = t; i < p.width; i += ${rowThreads}u) { dot += outer[row + i] * x[slot + i]; }
  dot = total(t, dot);
  if (t == 0u) { gradient[pair] = dot; }
}`,
});
