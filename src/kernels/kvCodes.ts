/**
 * Keys and values in a few bits: x ≈ z + s · code with codes from 0 to 2^bits − 1, z the least and z + s · (2^bits − 1) the
 * largest of a group of numbers, s and z in f16.
 *
 * Left at that, every key and every value is a group and becomes codes when it comes. With `kivi` (KIVI, 2402.02750) keys
 * have a group for each channel of 32 tokens, because outliers of keys stay in their channels, and values one for each 32
 * channels; the newest tokens are held as f32.
 */
export interface KvCodes {
  readonly bits: 2 | 4 | 8;
  readonly kivi?: {
    /** Newest tokens that are f32 at least. */
    readonly residual: number;
    /** Most rows of one `appendKv`. */
    readonly rows: number;
  };
}

/** Tokens, or channels, of a group of KIVI. */
export const kiviGroup = 32;
/** As a power of two. */
const kiviShift = 5;
/** As many as there are. */
const wholeRow = 31;

/** Slots whose keys and values are held as f32, each at slot % ring; 0 where all are codes. */
export const ringSlots = ({ kivi }: KvCodes): number =>
  kivi === undefined ? 0 : kivi.residual + kiviGroup - 1 + kivi.rows;

/**
 * Which scale an element has: of its key head that numbered (slot >> tokenShift) · scalesPerRow + (channel >> channelShift).
 */
export function groupShifts({ kivi }: KvCodes, part: "key" | "value") {
  if (kivi === undefined) return { tokenShift: 0, channelShift: wholeRow };
  return part === "key" ? { tokenShift: kiviShift, channelShift: 0 } : { tokenShift: 0, channelShift: kiviShift };
}

/** 32-bit words of the codes of one key or value, which begin at a word. */
export const rowWords = (bits: number, width: number): number => Math.ceil((width * bits) / 32);

/**
 * 32-bit words that one key head takes: codes [slots][rowWords], scales (s in the low half, z in the high one), and f32
 * [ring][width]. Each lies by itself for all heads, in this order.
 */
export function codedWords(codes: KvCodes, part: "key" | "value", width: number, slots: number) {
  const { tokenShift, channelShift } = groupShifts(codes, part);
  const scalesPerRow = ((width - 1) >> channelShift) + 1;
  const code = slots * rowWords(codes.bits, width);
  const scales = Math.ceil(slots / (1 << tokenShift)) * scalesPerRow;
  const ring = ringSlots(codes) * width;
  return { codes: code, scales, ring, scalesPerRow, all: code + scales + ring };
}

/** How many slots are to be codes when a pass begins at `start`: whole groups older than the newest tokens. */
export const kiviCoded = (residual: number, start: number): number =>
  kiviGroup * Math.floor(Math.max(0, start + 1 - residual) / kiviGroup);
