// Damage to files that are right: structured, where a file is made of values, and byte-wise. All of it follows from a
// generator, so that an input can be made again from its seed.

/** Values that have broken parsers. */
const evilValues = [
  ...[0, -0, -1, 1, 2, 3, 7, 63, 65, 255, 256, 1e3, 4097, 65_537, 0.5, 1e-320, 1e16, 1e300],
  ...[2 ** 24 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 1.7976931348623157e308],
  ...[null, true, false, "", "a", "..", "../x", "/etc/passwd", "0", "-1", "1e9", "NaN", "__proto__", "constructor"],
  ...[
    "\u0000",
    "\u001b[2J",
    "\ud800",
    "é",
    "\ufeff",
    "<0x41>",
    "(a+)+$",
    "[",
    "\\p{L}+",
    "{{ x }}",
    "{% for i in range(99) %}",
  ],
  ...[[], {}, [[]], [null], [0], ["a"], { toString: 1 }, { length: 5 }, { type: "Sequence" }, { a: { a: { a: {} } } }],
];

const nested = (levels) => {
  let value = 1;
  for (let i = 0; i < levels; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
};

/** @param random (n) => an integer below n */
export function evilValue(random) {
  const kind = random(40);
  if (kind === 0) return nested(3 + random(300));
  if (kind === 1) return "x".repeat(random(5000));
  if (kind === 2)
    return Array.from({ length: random(300) }, () => structuredClone(evilValues[random(evilValues.length)]));
  if (kind === 3) return "a".repeat(random(30)) + String.fromCharCode(random(0x10000)) + "}%".repeat(random(3));
  if (kind === 4) return random(2 ** 31) * (random(2) ? 1 : -1);
  // A copy: it may be damaged further.
  return structuredClone(evilValues[random(evilValues.length)]);
}

/** Every container of a value with the keys that lead to its children. */
function places(value, into = []) {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return into;
  for (const key of Object.keys(value)) {
    into.push([value, key]);
    places(value[key], into);
  }
  return into;
}

/** A damaged copy of a tree of plain values. */
export function mutateValue(seedValue, random) {
  const value = structuredClone(seedValue);
  for (let i = 1 + random(3); i > 0; i--) {
    const all = places(value);
    if (all.length === 0) return evilValue(random);
    const [holder, key] = all[random(all.length)];
    const [otherHolder, otherKey] = all[random(all.length)];
    const kind = random(10);
    if (kind < 5) holder[key] = evilValue(random);
    else if (kind === 5) Array.isArray(holder) ? holder.splice(Number(key), 1) : delete holder[key];
    else if (kind === 6) holder[key] = structuredClone(otherHolder[otherKey]);
    else if (kind === 7)
      Array.isArray(holder) ? holder.push(holder[key]) : Object.assign(holder, { [`${key}x`]: holder[key] });
    else if (kind === 8 && typeof holder[key] === "number") holder[key] *= [-1, 0, 0.5, 2, 1e6, 1 + 1e-9][random(6)];
    else if (kind === 9 && typeof holder[key] === "string") holder[key] = mutateText(holder[key], random);
    else holder[key] = [holder[key]];
  }
  return value;
}

function mutateText(text, random) {
  const at = random(text.length + 1);
  const end = at + random(text.length - at + 1);
  const pieces = [
    "",
    "\u0000",
    "\u001b[31m",
    text.slice(at, end).repeat(1 + random(20)),
    String(evilValue(random)?.toString ?? ""),
  ];
  return text.slice(0, at) + pieces[random(pieces.length)] + text.slice(random(2) ? end : at);
}

/** Damaged bytes: flips, numbers of 4 and 8 bytes, cuts, copies, repeats. */
export function mutateBytes(seedBytes, random) {
  let bytes = Buffer.from(seedBytes);
  for (let i = 1 + random(4); i > 0; i--) {
    if (bytes.length === 0) return bytes;
    const at = random(bytes.length);
    const length = Math.min(random(64), bytes.length - at);
    const kind = random(9);
    if (kind === 0) bytes[at] ^= 1 << random(8);
    else if (kind === 1) bytes[at] = random(256);
    else if (kind === 2) bytes = bytes.subarray(0, at);
    else if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
    else if (kind === 4)
      bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at)]);
    else if (kind === 5) bytes.fill(random(2) ? 0xff : 0, at, at + length);
    else if (kind === 6) bytes.copy(bytes, random(bytes.length), at, at + length);
    else if (kind === 7 && at + 4 <= bytes.length)
      bytes.writeUInt32LE([0, 1, 2 ** 31, 2 ** 32 - 1, random(2 ** 16)][random(5)], at);
    else if (at + 8 <= bytes.length)
      bytes.writeBigUInt64LE([0n, 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n, BigInt(random(2 ** 20))][random(6)], at);
  }
  return bytes;
}

export const utf8 = (text) => new TextEncoder().encode(text);
export const json = (value) => utf8(JSON.stringify(value) ?? "");
export const fresh = (bytes) => new Uint8Array(bytes);

/** Either the values are damaged or the bytes they are written as. */
export const damagedJson = (value, random) => {
  if (random(4) > 0) return json(mutateValue(value, random));
  return fresh(mutateBytes(json(value), random));
};
