import { formatBf16, formatQ4, formatQ8, structureDense, structureInt8Mixed, structureShift } from "../../program/layout";

// The code of a format is its structure and the dense format that its codes come from; see program/layout.ts.

// @ts-ignore: decorator
@inline
export function structureOf(format: i32): i32 {
  return format >> structureShift;
}

// @ts-ignore: decorator
@inline
export function valueOf(format: i32): i32 {
  return format & ((1 << structureShift) - 1);
}

/** Whether a dense format has scaled codes, with which inputs are multiplied as 8-bit integers. */
// @ts-ignore: decorator
@inline
export function isQuantised(dense: i32): bool {
  return dense == formatQ8 || dense == formatQ4;
}

/** The dense format that a group is unpacked to; a dense format is its own. 4-bit codes that lie apart become bytes. */
// @ts-ignore: decorator
@inline
export function unpackedFormat(format: i32): i32 {
  const structure = structureOf(format);
  if (structure == structureDense) return format;
  if (structure == structureInt8Mixed) return formatQ8;
  return valueOf(format) == formatBf16 ? formatBf16 : formatQ8;
}

/** Whether a format that leaves zeros out has scales. */
// @ts-ignore: decorator
@inline
export function hasScales(format: i32): bool {
  return unpackedFormat(format) == formatQ8;
}

/** The code of 0 in what is unpacked. */
// @ts-ignore: decorator
@inline
export function zeroCode(format: i32): i32 {
  return valueOf(format) == formatQ4 ? 8 : 128;
}
