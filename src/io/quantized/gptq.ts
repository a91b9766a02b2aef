import * as z from "zod/mini";
import { quote } from "../../core/index.js";
import { unpackCodes } from "../encoding/index.js";
import { heldToTheEnd } from "../heldToTheEnd.js";
import type { MatrixParts } from "./matrixParts.js";
import { groupsOf, scaledTensor, turnedColumns } from "./scaled.js";
import { checkRecord, groupSize, groupsInWords, type SourceFormat, stemBefore, unread } from "./sourceFormat.js";
import { codesOfColumns, wordsOf } from "./words.js";

const widths = [2, 3, 4, 8] as const;

const settings = z.object({
  bits: z.literal(widths),
  group_size: groupSize,
  desc_act: z.nullish(z.boolean()),
  sym: z.nullish(z.boolean()),
  checkpoint_format: z.nullish(z.string()),
  is_marlin_format: z.nullish(z.boolean()),
  /** Other settings for some modules (GPTQModel), by patterns of their names. */
  dynamic: z.optional(z.unknown()),
});

/** Layouts, and what is to be added to the zeros that they hold. */
const layouts: Readonly<Record<string, number>> = { gptq: 1, gptq_v2: 0 };

/**
 * GPTQ (arXiv 2210.17323) as AutoGPTQ and GPTQModel store it. Of W [out, in]: `qweight` I32 [in · bits / 32, out] with codes
 * down its columns, `scales` [groups, out], `qzeros` I32 [groups, out · bits / 32] with codes along its rows, and `g_idx` I32
 * [in], the group of each input (`desc_act`). W = scale · (code − zero). Files of the first version hold zero − 1.
 */
export const gptq: SourceFormat = {
  title: "GPTQ",
  reader(record, file) {
    const given = checkRecord(settings, record, file);
    const layout = given.is_marlin_format === true ? "marlin" : (given.checkpoint_format ?? "gptq");
    if (!Object.hasOwn(layouts, layout)) {
      throw unread(file, "checkpoint_format", `GPTQ in the layout ${quote(layout)} is not read`, '"gptq" or "gptq_v2"');
    }
    return {
      details: groupsInWords(given.bits, given.group_size),
      stemOf: (name) => stemBefore(name, ".qweight"),
      open: async (parts) => openMatrix(parts, given, layouts[layout]),
    };
  },
};

function openMatrix(parts: MatrixParts, given: z.output<typeof settings>, added: number) {
  const [wordRows, rows] = parts.part(".qweight", ["I32"], 2).shape;
  const order = parts.optional(".g_idx", ["I32"]);
  const cols = order?.shape[0] ?? Math.floor((wordRows * 32) / given.bits);
  const isOwn = given.dynamic != null;
  const bits = isOwn ? (widths.find((width) => wordsOf(cols, width) === wordRows) ?? given.bits) : given.bits;
  if (wordsOf(cols, bits) !== wordRows) {
    throw parts.fail(`${wordRows} rows of words for ${cols} inputs of ${bits} bits`, `${wordsOf(cols, bits)}`);
  }
  const stored = parts.part(".scales", ["F16", "BF16", "F32"], 2);
  const [groups] = stored.shape;
  parts.checkShape(".scales", stored, [groups, rows]);
  parts.checkShape(".qzeros", parts.part(".qzeros", ["I32"], 2), [groups, wordsOf(rows, bits)]);
  const size = isOwn ? Math.ceil(cols / groups) : given.group_size < 0 ? cols : given.group_size;
  if (Math.ceil(cols / size) !== groups) {
    throw parts.fail(`${groups} groups of scales`, `${Math.ceil(cols / size)}: ${cols} inputs by ${size}`);
  }

  const ordered = order !== undefined && groups > 1;
  const groupOf = groupsOf(parts, ".g_idx", groups, given.desc_act === true ? undefined : size);
  const words = heldToTheEnd(rows, () => parts.read(".qweight"));
  const scales = heldToTheEnd(rows, () => parts.numbers(".scales"));
  const zeros = heldToTheEnd(rows, async () => {
    if (ordered) await groupOf();
    return readZeros(await parts.read(".qzeros"), { rows, groups, bits, added });
  });
  const isSymmetric = given.sym === true;
  return scaledTensor(
    {
      shape: [rows, cols],
      encoding: `GPTQ ${bits} bits`,
      groupSize: size,
      ...(bits < 8 || isSymmetric ? { bits: isSymmetric ? bits : bits + 1 } : {}),
      scaleDType: stored.dtype as "F16" | "BF16" | "F32",
      ...(ordered && given.desc_act === true && { groupOf }),
      numbers: async (start, count) =>
        Float32Array.from(codesOfColumns(await words(start, count), rows, bits, cols, start, count)),
      scales: async (start, count) => turnedColumns(await scales(start, count), rows, start, count),
      zeros: async (start, count) => turnedColumns(await zeros(start, count), rows, start, count),
    },
    parts,
  );
}

/** u8 [groups, rows] */
function readZeros(
  bytes: Uint8Array,
  { rows, groups, bits, added }: { rows: number; groups: number; bits: number; added: number },
): Uint8Array {
  const rowBytes = bytes.byteLength / groups;
  const zeros = new Uint8Array(groups * rows);
  for (let g = 0; g < groups; g++) {
    zeros.set(unpackCodes(bytes.subarray(g * rowBytes, (g + 1) * rowBytes), bits, 0, rows), g * rows);
  }
  // A zero of 0, less 1, wrapped around.
  return zeros.map((zero) => (zero + added) & (2 ** bits - 1));
}
