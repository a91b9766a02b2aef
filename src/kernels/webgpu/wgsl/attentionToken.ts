import { kernel, read, readWrite } from "../kernel.js";
import { mergeBytes, mergeRow, takenRuns } from "./attentionRuns.js";
import { exchangeFunctions } from "./exchange.js";

export interface TokenShape {
  keyDim: number;
  valueDim: number;
  /** Query heads that share a key head. */
  group: number;
  /** Threads of a subgroup, and of a workgroup. */
  lanes: number;
  threads: number;
  /** Keys of which a team has all numbers on their way at once. */
  unroll: number;
}

export interface TokenVariant {
  /** Whether there are several runs of keys, which the workgroup that comes last joins. */
  joined: boolean;
  /** See `AttentionVariant.rotated`. */
  rotated: boolean;
  /** Whether `sinks` have a share of each softmax. */
  sunk: boolean;
}

/** Threads that take a key together, each fours of its numbers: a subgroup, or an equal share of one. */
const teamOf = ({ keyDim, lanes }: TokenShape) => Math.min(lanes, 2 ** Math.ceil(Math.log2(keyDim / 4)));

/** Keys that a workgroup takes in one round of its loop. */
export const keysAtOnce = (shape: TokenShape): number => (shape.threads / teamOf(shape)) * shape.unroll;

/** Fours of numbers that a thread holds of all query heads and sums, and of what is on its way. */
export const tokenRegisters = (shape: TokenShape): number => {
  const [keys, values] = [shape.keyDim, shape.valueDim].map((dim) => Math.ceil(dim / 4 / teamOf(shape)));
  return (shape.group + shape.unroll) * (keys + values);
};

/** Bytes of workgroup memory that a shape takes. */
export const attentionTokenBytes = (shape: TokenShape): number =>
  (shape.threads / teamOf(shape)) * shape.group * (4 * shape.valueDim + 8) + mergeBytes(shape.group) + 4;

/**
 * `attention` of one token over a cache of f32 without workgroup memory, or waiting, between the keys: a workgroup takes one
 * key head and one run of keys, each of its teams every so many keys. A team's threads hold their numbers of the query heads
 * that share the key head, add up products through the subgroup, and keep the running maximum, sum and weighted values of every
 * head (Dao et al. 2022). Teams are joined at the end, runs as `attention` joins them.
 */
export const attentionToken = (shape: TokenShape, { joined, rotated, sunk }: TokenVariant) => {
  const { keyDim, valueDim, group, lanes, threads, unroll } = shape;
  const team = teamOf(shape);
  const teams = threads / team;
  const [keyQuads, valueQuads] = [keyDim / 4, valueDim / 4];
  const list = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  const ofKey = (line: (c: number) => string) => list(Math.ceil(keyQuads / team), line);
  const ofValue = (line: (c: number) => string) => list(Math.ceil(valueQuads / team), line);
  const each = (line: (j: number) => string) => list(group, line);
  const atOnce = (line: (u: number) => string) => list(unroll, line);
  const place = (c: number) => `(lane + ${c * team}u)`;
  /** A four of `quads`, 0 beyond the last: not every head fills a team. */
  const within = (c: number, quads: number, four: string) =>
    (c + 1) * team > quads ? `select(vec4<f32>(), ${four}, ${place(c)} < ${quads}u)` : four;
  const inside = (c: number, quads: number) => ((c + 1) * team > quads ? `min(${place(c)}, ${quads - 1}u)` : place(c));
  const total = Array.from({ length: Math.log2(team) }, (_, i) => `sum += subgroupShuffleXor(sum, ${2 ** i}u);`).join(
    " ",
  );
  const half = keyQuads / 2;
  const queryOf = (j: number, c: number) => {
    const head = `p.qOffset + (kvHead * ${group}u + ${j}u) * ${keyDim}u`;
    return within(
      c,
      keyQuads,
      rotated ? `rotatedFour(${head}, ${inside(c, keyQuads)})` : `four(${head} + ${inside(c, keyQuads)} * 4u)`,
    );
  };
  // Slots that are in the cache already: all that is seen, but for the one that the kernel itself brings there.
  const lastCached = rotated ? "max(p.start, 1u) - 1u" : "end - 1u";
  const cached = (name: string, u: number, c: number, quads: number) =>
    within(c, quads, `${name}[(min(slot${u}, ${lastCached}) * p.kvHeads + kvHead) * ${quads}u + ${inside(c, quads)}]`);
  const orNewest = (u: number, four: string, newest: string) =>
    rotated ? `select(${four}, ${newest}, slot${u} >= p.start)` : four;
  const bringNewest = /* wgsl */ `
  ${ofKey((c) => `var newKey${c} = vec4<f32>();`)}
  ${ofValue((c) => `var newValue${c} = vec4<f32>();`)}
  if (end == p.start + 1u) {
    ${ofKey((c) => `newKey${c} = ${within(c, keyQuads, `rotatedFour(p.kOffset + kvHead * ${keyDim}u, ${inside(c, keyQuads)})`)};`)}
    ${ofValue((c) => `newValue${c} = ${within(c, valueQuads, `valueFour(p.vOffset + kvHead * ${valueDim}u + ${inside(c, valueQuads)} * 4u)`)};`)}
    if (own == 0u) {
      ${ofKey((c) => `if (${place(c)} < ${keyQuads}u) { cachedKeys[(p.start * p.kvHeads + kvHead) * ${keyQuads}u + ${place(c)}] = newKey${c}; }`)}
      ${ofValue((c) => `if (${place(c)} < ${valueQuads}u) { cachedValues[(p.start * p.kvHeads + kvHead) * ${valueQuads}u + ${place(c)}] = newValue${c}; }`)}
    }
  }`;
  const variant = `${joined ? " joined" : ""}${rotated ? " rotated" : ""}${sunk ? " sunk" : ""}`;
  const cache = rotated ? readWrite("vec4<f32>") : read("vec4<f32>");
  return kernel({
    name: `attentionToken ${keyDim} ${valueDim} ${group} ${lanes} ${threads} ${unroll}${variant}`,
    enable: ["subgroups"],
    params: {
      qOffset: "u32",
      outOffset: "u32",
      kOffset: "u32",
      vOffset: "u32",
      runs: "u32",
      /** Where sums and states begin in `exchange`. */
      sumsAt: "u32",
      statesAt: "u32",
      start: "u32",
      position: "u32",
      window: "u32",
      kvHeads: "u32",
      keysPerRun: "u32",
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
    },
    buffers: {
      outs: readWrite(),
      qs: read(),
      cachedKeys: cache,
      cachedValues: cache,
      exchange: readWrite("atomic<u32>"),
      ks: read(),
      vs: read(),
      cosines: read(),
      sines: read(),
      sinks: read(),
    },
    code: /* wgsl */ `
const NONE = -3.0e38;
const VALUE_DIM = ${valueDim}u;
var<workgroup> maxima: array<f32, ${teams * group}>;
var<workgroup> lengths: array<f32, ${teams * group}>;
var<workgroup> sums: array<vec4<f32>, ${teams * group * valueQuads}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let kvHead = workgroup.x;
  let run = workgroup.y;
  let lane = t % ${team}u;
  let own = t / ${team}u;
  let begin = max(p.start + 1u, p.window) - p.window + run * p.keysPerRun;
  let end = min(p.start + 1u, begin + p.keysPerRun);
  ${each((j) => ofKey((c) => `let query${j}_${c} = ${queryOf(j, c)};`))}
  ${rotated ? bringNewest : ""}
  ${each((j) =>
    sunk
      ? /* wgsl */ `
    // The sink is a first key of the first run, whose value is 0.
    let hasSink${j} = run == 0u && own == 0u;
    var highest${j} = select(NONE, sinks[kvHead * ${group}u + ${j}u], hasSink${j});
    var length${j} = select(0.0, 1.0, hasSink${j});`
      : `var highest${j} = NONE; var length${j} = 0.0;`,
  )}
  ${each((j) => ofValue((c) => `var acc${j}_${c} = vec4<f32>();`))}

  for (var first = begin; first < end; first += ${keysAtOnce(shape)}u) {
    ${atOnce((u) => `let slot${u} = first + own + ${u * teams}u;`)}
    ${atOnce((u) => ofKey((c) => `let key${u}_${c} = ${orNewest(u, cached("cachedKeys", u, c, keyQuads), `newKey${c}`)};`))}
    ${atOnce((u) => ofValue((c) => `let value${u}_${c} = ${orNewest(u, cached("cachedValues", u, c, valueQuads), `newValue${c}`)};`))}
    ${each(
      (j) => `{
      ${atOnce((u) => `let score${u} = score(teamSum(${sumOf(Math.ceil(keyQuads / team), (c) => `dot(query${j}_${c}, key${u}_${c})`)}), slot${u}, end);`)}
      let before = highest${j};
      ${atOnce((u) => `highest${j} = max(highest${j}, score${u});`)}
      let shrink = select(exp(before - highest${j}), 0.0, before == NONE);
      length${j} *= shrink;
      ${ofValue((c) => `acc${j}_${c} *= shrink;`)}
      ${atOnce(
        (u) => `{
        let weight = select(exp(score${u} - highest${j}), 0.0, score${u} == NONE);
        length${j} += weight;
        ${ofValue((c) => `acc${j}_${c} = fma(vec4<f32>(weight), value${u}_${c}, acc${j}_${c});`)}
      }`,
      )}
    }`,
    )}
  }

  ${each(
    (j) => `
  if (lane == 0u) {
    maxima[own * ${group}u + ${j}u] = highest${j};
    lengths[own * ${group}u + ${j}u] = length${j};
  }
  ${ofValue((c) => `if (${place(c)} < ${valueQuads}u) { sums[(own * ${group}u + ${j}u) * ${valueQuads}u + ${place(c)}] = acc${j}_${c}; }`)}`,
  )}
  workgroupBarrier();
  for (var e = t; e < ${group * valueQuads}u; e += ${threads}u) {
    let j = e / ${valueQuads}u;
    let quad = e % ${valueQuads}u;
    var highest = maxima[j];
    for (var k = 1u; k < ${teams}u; k += 1u) { highest = max(highest, maxima[k * ${group}u + j]); }
    var length = 0.0;
    var sum = vec4<f32>();
    for (var k = 0u; k < ${teams}u; k += 1u) {
      let share = exp(maxima[k * ${group}u + j] - highest);
      length = fma(share, lengths[k * ${group}u + j], length);
      sum = fma(vec4<f32>(share), sums[(k * ${group}u + j) * ${valueQuads}u + quad], sum);
    }
    let head = kvHead * ${group}u + j;
    ${
      joined
        ? /* wgsl */ `
    let at = run * p.kvHeads * ${group}u + head;
    for (var i = 0u; i < 4u; i += 1u) { leave(p.sumsAt + at * VALUE_DIM + quad * 4u + i, sum[i]); }
    if (quad == 0u) {
      leave(p.statesAt + 2u * at, highest);
      leave(p.statesAt + 2u * at + 1u, length);
    }`
        : /* wgsl */ `
    let mean = select(sum / length, vec4<f32>(), length == 0.0);
    for (var i = 0u; i < 4u; i += 1u) { outs[p.outOffset + head * VALUE_DIM + quad * 4u + i] = mean[i]; }`
    }
  }
  ${
    joined
      ? /* wgsl */ `
  // All threads have left their numbers before the ticket is taken.
  storageBarrier();
  if (t == 0u) { isLast = select(0u, 1u, comesLast(kvHead, p.runs)); }
  if (workgroupUniformLoad(&isLast) == 0u) { return; }
  let head = kvHead * ${group}u;
  mergeRow(head, p.kvHeads * ${group}u, p.outOffset + head * VALUE_DIM, t);`
      : ""
  }
}
${joined ? `var<workgroup> isLast: u32;${exchangeFunctions}${mergeRow(threads, takenRuns, group)}` : ""}

/** A sum over the threads of a team, for each of them. */
fn teamSum(share: f32) -> f32 {
  var sum = share;
  ${total}
  return sum;
}

/** The score of a key; NONE where it is not visible. */
fn score(product: f32, slot: u32, end: u32) -> f32 {
  var scaled = product * p.scale;
  if (p.softcap > 0.0) { scaled = p.softcap * tanh(clamp(scaled / p.softcap, -15.0, 15.0)); }
  return select(NONE, scaled, slot < end);
}

fn four(at: u32) -> vec4<f32> {
  return vec4<f32>(qs[at], qs[at + 1u], qs[at + 2u], qs[at + 3u]);
}
${
  rotated
    ? /* wgsl */ `
fn valueFour(at: u32) -> vec4<f32> {
  return vec4<f32>(vs[at], vs[at + 1u], vs[at + 2u], vs[at + 3u]);
}

/** Four numbers of a head that is still to be rotated; q and k lie in one buffer. */
fn rotatedFour(head: u32, quad: u32) -> vec4<f32> {
  let isFirst = quad < ${half}u;
  let other = four(head + select(quad - ${half}u, quad + ${half}u, isFirst) * 4u);
  let angle = p.position * ${keyDim / 2}u + quad % ${half}u * 4u;
  let c = vec4<f32>(cosines[angle], cosines[angle + 1u], cosines[angle + 2u], cosines[angle + 3u]);
  let s = vec4<f32>(sines[angle], sines[angle + 1u], sines[angle + 2u], sines[angle + 3u]);
  return four(head + quad * 4u) * c + other * select(s, -s, isFirst);
}`
    : ""
}`,
  });
};

const sumOf = (count: number, term: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => term(i)).join(" + ");
