import { groupShifts, type KvCodes, kiviGroup } from "../../kvCodes.js";
import { kernel, read, readWrite } from "../kernel.js";
import { entry } from "./elementwise.js";

/** Where what `codedWords` counts lies in the buffer of a layer's keys, or values. */
export const codedParams = { capacity: "u32", coded: "u32", ring: "u32" } as const;

/** What differs from kernel to kernel. */
export const codesName = ({ bits, kivi }: KvCodes): string => `${bits} bits${kivi === undefined ? "" : " in groups"}`;

const wordsOf = (bits: number, width: number) => Math.ceil((width * bits) / 32);

/** Scales of a row: WGSL of the number of one of an element, and how many a key head has. */
function scales(codes: KvCodes, part: "key" | "value", width: number) {
  const { tokenShift, channelShift } = groupShifts(codes, part);
  const perRow = ((width - 1) >> channelShift) + 1;
  const groups = tokenShift === 0 ? "p.capacity" : `((p.capacity + ${kiviGroup - 1}u) / ${kiviGroup}u)`;
  return {
    byChannel: channelShift === 0,
    channels: Math.min(width, 2 ** channelShift),
    ofHead: `(${groups} * ${perRow}u)`,
    at: (slot: string, c: string) => `((${slot} >> ${tokenShift}u) * ${perRow}u + (${c} >> ${channelShift}u))`,
  };
}

/**
 * WGSL functions `keyFour(slot, head, quad)` and `keyOne(slot, head, c)`, or those of values, that read the entries of a
 * cache of codes from `buffer`. Needs `codedParams`, and where scales and ring begin in `p.keyScalesAt` and `p.keyRingAt`.
 */
export function codedReads(part: "key" | "value", buffer: string, codes: KvCodes, width: number): string {
  const { bits, kivi } = codes;
  const mask = 2 ** bits - 1;
  const { at, ofHead, byChannel } = scales(codes, part, width);
  const scaleOf = (c: string) => `unpack2x16float(${buffer}[p.${part}ScalesAt + head * ${ofHead} + ${at("slot", c)}])`;
  const ringAt = `p.${part}RingAt + (head * p.ring + slot % p.ring) * ${width}u`;
  const waiting = (value: string) =>
    kivi === undefined ? "" : /* wgsl */ `if (slot >= p.coded) { let at = ${ringAt}; return ${value}; }`;
  const number = (offset: string) => `bitcast<f32>(${buffer}[at + ${offset}])`;
  const quad = `vec4<f32>(${[0, 1, 2, 3].map((i) => number(`4u * quad + ${i}u`)).join(", ")})`;
  const word = (c: string) =>
    `(${buffer}[(head * p.capacity + slot) * ${wordsOf(bits, width)}u + ((${c} * ${bits}u) >> 5u)] >> ((${c} * ${bits}u) & 31u))`;
  return /* wgsl */ `
fn ${part}Four(slot: u32, head: u32, quad: u32) -> vec4<f32> {
  ${waiting(quad)}
  let word = ${word("(4u * quad)")};
  let codes = vec4<f32>(vec4<u32>(word, word >> ${bits}u, word >> ${2 * bits}u, word >> ${3 * bits}u) & vec4<u32>(${mask}u));
  ${
    byChannel
      ? /* wgsl */ `
  let s0 = ${scaleOf("(4u * quad)")};
  let s1 = ${scaleOf("(4u * quad + 1u)")};
  let s2 = ${scaleOf("(4u * quad + 2u)")};
  let s3 = ${scaleOf("(4u * quad + 3u)")};
  return fma(codes, vec4<f32>(s0.x, s1.x, s2.x, s3.x), vec4<f32>(s0.y, s1.y, s2.y, s3.y));`
      : /* wgsl */ `
  let scale = ${scaleOf("(4u * quad)")};
  return fma(codes, vec4<f32>(scale.x), vec4<f32>(scale.y));`
  }
}
fn ${part}One(slot: u32, head: u32, c: u32) -> f32 {
  ${waiting(number("c"))}
  let scale = ${scaleOf("c")};
  return fma(f32(${word("c")} & ${mask}u), scale.x, scale.y);
}`;
}

const sourceParams = { offset: "u32", rowStride: "u32", headStride: "u32", start: "u32", heads: "u32" } as const;

/**
 * Makes codes of f32 rows: one thread per word of codes, one grid row per slot. Every thread looks at the whole groups of its
 * numbers, so that none waits for another. With a ring the rows are those of the buffer itself, at slot % ring.
 */
export const codeKv = (codes: KvCodes, part: "key" | "value", width: number) => {
  const { bits, kivi } = codes;
  const { at, ofHead, byChannel, channels } = scales(codes, part, width);
  const levels = 2 ** bits - 1;
  const perWord = 32 / bits;
  const rowWords = wordsOf(bits, width);
  const rowOf = kivi === undefined ? "(slot - p.start)" : "(slot % p.ring)";
  const x = (slotOf: string, c: string) =>
    `source[p.offset + ${rowOf.replace("slot", slotOf)} * p.rowStride + head * p.headStride + ${c}]`;
  const range = /* wgsl */ `
    var least = 3.4e38;
    var largest = -3.4e38;
    var finite = true;`;
  const widen = (bitsOf: string) => /* wgsl */ `
      let bits = ${bitsOf};
      finite = finite && (bits & 0x7f800000u) != 0x7f800000u;
      least = min(least, bitcast<f32>(bits));
      largest = max(largest, bitcast<f32>(bits));`;
  const ofChannel = /* wgsl */ `${range}
    for (var t = slot / ${kiviGroup}u * ${kiviGroup}u; t < slot / ${kiviGroup}u * ${kiviGroup}u + ${kiviGroup}u; t += 1u) {
      ${widen(x("t", "c"))}
    }`;
  const ofRow = /* wgsl */ `${range}
    for (var o = c / ${channels}u * ${channels}u; o < min(${width}u, c / ${channels}u * ${channels}u + ${channels}u); o += 1u) {
      ${widen(x("slot", "o"))}
    }`;
  return kernel({
    name: `codeKv ${part} ${codesName(codes)} ${width}`,
    params: { ...codedParams, ...sourceParams, scalesAt: "u32" },
    buffers: { source: read("u32"), held: readWrite("u32") },
    code: `${entry(/* wgsl */ `
  if (i >= p.heads * ${rowWords}u) { return; }
  let head = i / ${rowWords}u;
  let first = i % ${rowWords}u * ${perWord}u;
  let slot = p.start + row;
  var word = 0u;
  var scale = 0u;
  for (var n = 0u; n < ${perWord}u; n += 1u) {
    let c = first + n;
    if (c >= ${width}u) { break; }
    ${byChannel ? "" : `if (n == 0u) {`}
    ${byChannel ? ofChannel : ofRow}
    scale = scaleOf(least, largest, finite);
    ${byChannel ? `if (slot % ${kiviGroup}u == 0u)` : `if (c % ${channels}u == 0u)`} {
      held[p.scalesAt + head * ${ofHead} + ${at("slot", "c")}] = scale;
    }
    ${byChannel ? "" : "}"}
    let sz = unpack2x16float(scale);
    let steps = round((bitcast<f32>(${x("slot", "c")}) - sz.y) / select(sz.x, 1.0, sz.x == 0.0));
    word |= u32(clamp(steps, 0.0, select(${levels}.0, 0.0, sz.x == 0.0))) << (n * ${bits}u);
  }
  held[(head * p.capacity + slot) * ${rowWords}u + i % ${rowWords}u] = word;`)}
fn scaleOf(least: f32, largest: f32, finite: bool) -> u32 {
  if (!finite) { return 0x7e007e00u; }
  let z = pack2x16float(vec2<f32>(clamp(least, -65504.0, 65504.0), 0.0));
  let s = pack2x16float(vec2<f32>(min((largest - unpack2x16float(z).x) / ${levels}.0, 65504.0), 0.0));
  return (s & 0xffffu) | (z << 16u);
}`,
  });
};

/** Rows to their places in the ring: one thread per element, one grid row per row. */
export const ringAppend = (width: number) =>
  kernel({
    name: `ringAppend ${width}`,
    params: { ring: "u32", ringAt: "u32", ...sourceParams },
    buffers: { source: read("u32"), held: readWrite("u32") },
    code: entry(/* wgsl */ `
  if (i >= p.heads * ${width}u) { return; }
  let head = i / ${width}u;
  let c = i % ${width}u;
  held[p.ringAt + (head * p.ring + (p.start + row) % p.ring) * ${width}u + c] =
    source[p.offset + row * p.rowStride + head * p.headStride + c];`),
  });

/** Entries that are codes of single slots: one thread per word, one grid row per move. */
export const moveCodes = (weighed: boolean) =>
  kernel({
    name: `moveCodes${weighed ? " weighed" : ""}`,
    params: { capacity: "u32", keyWords: "u32", valueWords: "u32", keyScalesAt: "u32", valueScalesAt: "u32" },
    buffers: { moves: read("u32"), keys: readWrite("u32"), values: readWrite("u32"), mass: readWrite() },
    code: entry(/* wgsl */ `
  let head = moves[row * 4u] * p.capacity;
  let source = head + moves[row * 4u + 1u];
  let goal = head + moves[row * 4u + 2u];
  if (i < p.keyWords) { keys[goal * p.keyWords + i] = keys[source * p.keyWords + i]; }
  if (i < p.valueWords) { values[goal * p.valueWords + i] = values[source * p.valueWords + i]; }
  if (i == 0u) {
    keys[p.keyScalesAt + goal] = keys[p.keyScalesAt + source];
    if (p.valueWords > 0u) { values[p.valueScalesAt + goal] = values[p.valueScalesAt + source]; }
    ${weighed ? "mass[goal] = mass[source];" : ""}
  }`),
  });
