import * as z from "zod/mini";
import { quote } from "../../core/index.js";
import { heldToTheEnd } from "../heldToTheEnd.js";
import type { MatrixParts } from "./matrixParts.js";
import { scaledTensor, turnedColumns } from "./scaled.js";
import { checkRecord, groupSize, groupsInWords, type SourceFormat, stemBefore, unread } from "./sourceFormat.js";

const settings = z.object({
  bits: z.literal(4),
  group_size: groupSize,
  zero_point: z._default(z.boolean(), true),
  version: z._default(z.string(), "gemm"),
});

const perWord = 8;
/** At which of the eight nibbles of a word the code of an output lies, by its number among eight. */
const nibbleOf = [0, 4, 1, 5, 2, 6, 3, 7];

/**
 * AWQ (arXiv 2306.00978) as AutoAWQ stores it for matrix products (`gemm`). Of W [out, in]: `qweight` I32 [in, out / 8], `qzeros`
 * I32 [groups, out / 8], both with eight codes of neighbouring outputs in a word, in an order of their own, and `scales` [groups,
 * out]. W = scale · (code − zero).
 */
export const awq: SourceFormat = {
  title: "AWQ",
  reader(record, file) {
    const given = checkRecord(settings, record, file);
    if (given.version.toLowerCase() !== "gemm") {
      throw unread(file, "version", `AWQ in the layout ${quote(given.version)} is not read`, '"gemm"');
    }
    return {
      details: groupsInWords(given.bits, given.group_size),
      stemOf: (name) => stemBefore(name, ".qweight"),
      open: async (parts) => openMatrix(parts, given),
    };
  },
};

function openMatrix(parts: MatrixParts, given: z.output<typeof settings>) {
  const [cols, words] = parts.part(".qweight", ["I32"], 2).shape;
  const rows = words * perWord;
  const size = given.group_size < 0 ? cols : given.group_size;
  const groups = Math.ceil(cols / size);
  const stored = parts.part(".scales", ["F16", "BF16", "F32"], 2);
  parts.checkShape(".scales", stored, [groups, rows]);
  const hasZeros = given.zero_point;
  if (hasZeros) parts.checkShape(".qzeros", parts.part(".qzeros", ["I32"], 2), [groups, words]);
  else parts.optional(".qzeros");

  const codes = heldToTheEnd(rows, () => parts.read(".qweight"));
  const zeros = heldToTheEnd(rows, () => parts.read(".qzeros"));
  const scales = heldToTheEnd(rows, () => parts.numbers(".scales"));
  return scaledTensor(
    {
      shape: [rows, cols],
      encoding: "AWQ 4 bits",
      groupSize: size,
      bits: hasZeros ? 5 : 4,
      scaleDType: stored.dtype as "F16" | "BF16" | "F32",
      numbers: async (start, count) => unpack(await codes(start, count), words, start, count),
      scales: async (start, count) => turnedColumns(await scales(start, count), rows, start, count),
      zeros: async (start, count) =>
        hasZeros ? unpack(await zeros(start, count), words, start, count) : new Float32Array(count * groups).fill(8),
    },
    parts,
  );
}

/** Codes of outputs [start, start + count) of words [length, words], f32 [count, length]. */
function unpack(bytes: Uint8Array, words: number, start: number, count: number): Float32Array {
  const length = bytes.byteLength / 4 / words;
  const out = new Float32Array(count * length);
  for (let r = 0; r < count; r++) {
    const nibble = nibbleOf[(start + r) % perWord];
    const first = Math.floor((start + r) / perWord) * 4 + (nibble >> 1);
    const shift = (nibble & 1) * 4;
    for (let i = 0, from = first; i < length; i++, from += words * 4) {
      out[r * length + i] = (bytes[from] >> shift) & 15;
    }
  }
  return out;
}
