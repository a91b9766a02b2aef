// What the host writes into a program and the kernels read from it. This table is the only place where an operand has a
// name, a type and a position: the encoder of the host (encode.ts) reads it, and scripts/generate-records.mjs makes the
// AssemblyScript classes and the C structs of the kernels from it. It imports nothing, so that the script can load it.
//
// A program is a run of 32-bit words: for every operation its code, the number of words that follow, its operands, the
// length of each of its lists, and the lists; a code of 0 ends it.

/**
 * Every operand is one 32-bit word. "address": a byte offset in the memory that the program lies in, never negative;
 * "size": a number that is never negative; "flag": 0 or 1. Strides are in f32 numbers where their name does not say bytes.
 */
export type Kind = "address" | "size" | "i32" | "f32" | "flag";

export type Fields = Readonly<Record<string, Kind>>;

export interface OperationTable {
  readonly fields: Fields;
  /** What follows on the fields: the name of a record in `items`, or one word each. */
  readonly lists?: Readonly<Record<string, string>>;
}

/** Records that operations have lists of. */
export const items = {
  /** Packed rows of a matrix-vector product that drop inputs by one threshold. */
  segment: {
    threshold: "f32",
    firstRow: "size",
    /** Behind the last row; padded. */
    endRow: "size",
    /** Whether its inputs and bytes are to be counted. */
    counts: "flag",
    /** Parts of the stack that it spans. */
    parts: "i32",
    /** In formats in which every part is a matrix of its own, that part's bytes. */
    weights: "address",
  },
  /** Where the sums of one part of a stack go. */
  vectorPart: { packedRow: "size", firstOutput: "size", rows: "i32" },
  /** One part of a stack in a matrix-matrix product. */
  matrixPart: {
    threshold: "f32",
    /** First row of x that the threshold holds for. */
    sparseFromRow: "i32",
    packedRow: "size",
    firstOutput: "size",
    rows: "size",
    /** Which prepared x it multiplies with, and whether it is the part that prepares it. */
    input: "size",
    prepares: "flag",
    /** As in `segment`. */
    weights: "address",
  },
  /** An entry of a cache that moves, and by how many positions its key turns. */
  move: { head: "size", from: "size", to: "size", turn: "i32" },
  /** One expert's share of a row; slot −1: none. */
  expertTerm: { slot: "i32", weight: "f32" },
} as const satisfies Readonly<Record<string, Fields>>;

/** Which columns of a head turn together; see `pairPlaces`. */
const pairs = { first: "i32", half: "i32", step: "i32", apart: "i32" } as const;

/** What the rows of a pass see; see kernels/sight.ts. */
const sight = {
  start: "i32",
  /** Whether rows see no further than their own slots. */
  causal: "flag",
  /** 0: none. */
  window: "i32",
  /** Slots in use. */
  used: "i32",
  /** Of a block mask, the table of every head, where lists begin, blocks with their masks, bits; 0 without one. */
  tableOfHead: "address",
  lists: "address",
  blocks: "address",
  bits: "address",
  tables: "i32",
} as const;

/** Keys of a cache whose entries are codes; see kernels/kvCodes.ts. All 0 where keys are f32. */
const codedKeys = {
  codeBits: "i32",
  /** Whether groups are those of KIVI. */
  kivi: "flag",
  /** Slots before this one are codes; the others are f32 at slot % ring. */
  coded: "i32",
  ring: "i32",
  /** s and z of every group, f16 each: [kvHeads][groups] */
  keyScales: "address",
  /** f32 [kvHeads][ring][width] */
  keyRing: "address",
} as const;
const codedValues = { valueScales: "address", valueRing: "address" } as const;

/** What is read and written row by row. */
const rowsToRows = { out: "address", outStride: "i32", x: "address", xStride: "i32", rows: "i32" } as const;
/** What products of one row have in common, wherever their weights lie. */
const ofMatvec = {
  ...({ paddedRows: "size", format: "i32", dot: "i32" } as const),
  /** f32 [slices][paddedRows]; of scattered columns set to 0 before the first group and added up behind the last */
  sums: "address",
  /** Per thread: a list of active inputs, what making it takes, i32 [tileRows]. */
  ...({ scratch: "address", scratchBytes: "i32", out: "address" } as const),
  /** Or 0. */
  ...({ bias: "address", accumulate: "flag" } as const),
  /** Runs of inputs with sums of their own; the result depends on their number. */
  slices: "i32",
  /** Runs of rows of each slice, so that there is work for all threads. */
  rowRuns: "i32",
} as const;

/** Every operation. Its code is its position, from 1 on. */
export const operations = {
  /** out = W·x (+ bias) (+ out) for one x; see assembly/matvec.ts. */
  matvec: {
    fields: { x: "address", cols: "i32", weights: "address", ...ofMatvec },
    lists: { segments: "segment", parts: "vectorPart" },
  },
  /** out = x·Wᵀ (+ bias) (+ out); see assembly/matmul.ts. */
  matmul: {
    fields: {
      x: "address",
      xStride: "size",
      tokens: "i32",
      cols: "i32",
      weights: "address",
      paddedRows: "size",
      format: "i32",
      dot: "i32",
      /** Prepared x, one after the other. */
      inputs: "address",
      /** Per thread: a panel, an unpacked group in formats that need one, f32 [tokens rounded up to 4][64]. */
      scratch: "address",
      scratchBytes: "size",
      out: "address",
      outStride: "size",
      /** Or 0. */
      bias: "address",
      accumulate: "flag",
    },
    lists: { parts: "matrixPart" },
  },
  rmsNorm: {
    fields: {
      ...rowsToRows,
      cols: "i32",
      weight: "address",
      weightLength: "i32",
      epsilon: "f32",
    },
  },
  /** (x − mean) / √(variance + epsilon) · weight + bias */
  layerNorm: {
    fields: {
      ...rowsToRows,
      cols: "i32",
      weight: "address",
      /** Or 0. */
      bias: "address",
      weightLength: "i32",
      epsilon: "f32",
    },
  },
  rope: {
    fields: {
      x: "address",
      stride: "i32",
      rows: "i32",
      heads: "i32",
      headDim: "i32",
      ...pairs,
      cos: "address",
      sin: "address",
      start: "i32",
    },
  },
  /** Keys and values are kept f32 [kvHeads][slots][width], mass f32 [kvHeads][slots]. */
  appendKv: {
    fields: {
      k: "address",
      kStride: "i32",
      /** Of no columns where values lie in keys. */
      v: "address",
      vStride: "i32",
      rows: "i32",
      kvHeads: "i32",
      keyDim: "i32",
      valueDim: "i32",
      keys: "address",
      values: "address",
      /** Or 0. */
      mass: "address",
      slots: "i32",
      start: "i32",
    },
  },
  /** Makes codes of the keys, or the values, of some slots. */
  codeKv: {
    fields: {
      /** f32: row r of head h at source + r · rowStride + h · headStride; with a ring, r is slot % ring. */
      source: "address",
      rowStride: "i32",
      headStride: "i32",
      /** 0: none, and r counts from the first slot. */
      ring: "i32",
      start: "i32",
      rows: "i32",
      kvHeads: "i32",
      width: "i32",
      codes: "address",
      scales: "address",
      slots: "i32",
      bits: "i32",
      /** Whether a group is one channel of 32 slots; else it is `channels` channels of one. */
      byChannel: "flag",
      channels: "i32",
      /** Whose slots are emptied; or 0. */
      mass: "address",
    },
  },
  attention: {
    fields: {
      out: "address",
      outStride: "i32",
      q: "address",
      qStride: "i32",
      rows: "i32",
      queryHeads: "i32",
      kvHeads: "i32",
      keyDim: "i32",
      valueDim: "i32",
      /** Floats from one value to the next. */
      valueStride: "i32",
      keys: "address",
      values: "address",
      slots: "i32",
      ...codedKeys,
      ...codedValues,
      ...sight,
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
      /** f32 [queryHeads], or 0. */
      sinks: "address",
      /** f32 [rows][queryHeads]: maximum and sum of the softmax; or 0. */
      states: "address",
      /** Per thread: scores, then queries and sums f32 [4][width] each, for up to 8 fours; of codes also f32 [64][width] keys and values. */
      scratch: "address",
      scratchBytes: "i32",
    },
  },
  /** mass += what attention gave to every slot, by the states that it left. */
  attentionMass: {
    fields: {
      q: "address",
      qStride: "i32",
      rows: "i32",
      queryHeads: "i32",
      kvHeads: "i32",
      keyDim: "i32",
      keys: "address",
      mass: "address",
      slots: "i32",
      ...codedKeys,
      /** Of codes, per thread: f32 [32][keyDim] keys. */
      scratch: "address",
      scratchBytes: "i32",
      ...sight,
      scale: "f32",
      /** 0: none. */
      softcap: "f32",
      states: "address",
      /** Whether of the heads of a key head the largest counts; else all do. */
      largest: "flag",
    },
  },
  moveKv: {
    fields: {
      /** Bytes of a key and of a value. */
      keyBytes: "size",
      valueBytes: "size",
      keys: "address",
      values: "address",
      /** One word for each slot, where entries are codes; or 0. */
      keyScales: "address",
      valueScales: "address",
      /** Or 0. */
      mass: "address",
      slots: "i32",
      ...pairs,
      /** Or 0: nothing turns. */
      cos: "address",
      sin: "address",
    },
    lists: { moves: "move" },
  },
  gatedActivation: {
    fields: {
      out: "address",
      outStride: "i32",
      gate: "address",
      gateStride: "i32",
      up: "address",
      upStride: "i32",
      rows: "i32",
      /** A multiple of 4. */
      cols: "i32",
      activation: "i32",
      /** 0: none. */
      threshold: "f32",
      /** Of clamped gates, else 0. */
      limit: "f32",
      sharpness: "f32",
    },
  },
  /** out = f(x) */
  map: {
    fields: {
      out: "address",
      outStride: "i32",
      x: "address",
      xStride: "i32",
      rows: "i32",
      /** A multiple of 4. */
      cols: "i32",
      function: "i32",
      by: "f32",
    },
  },
  /** out += x */
  add: {
    fields: { out: "address", outStride: "i32", x: "address", xStride: "i32", rows: "i32", cols: "i32" },
  },
  /** Rows of a dense matrix as f32. */
  embed: {
    fields: { out: "address", outStride: "i32", cols: "i32", weights: "address", paddedRows: "size", format: "i32" },
    lists: { ids: "size" },
  },
  /** Rows of a matrix in another format as f32. */
  unpackRows: {
    fields: {
      out: "address",
      outStride: "i32",
      cols: "i32",
      weights: "address",
      paddedRows: "size",
      format: "i32",
      /** Per thread one unpacked group. */
      scratch: "address",
      scratchBytes: "i32",
    },
    lists: { ids: "size" },
  },
  /** results: per row k pairs of u32 index, f32 value, descending, ties by the lowest index. */
  topK: {
    fields: { x: "address", xStride: "i32", rows: "i32", cols: "i32", k: "i32", results: "address" },
  },
  /** Rows as stored, row-major, into a dense format; see assembly/pack.ts. */
  pack: {
    fields: {
      source: "address",
      dtype: "i32",
      rows: "i32",
      cols: "i32",
      weights: "address",
      paddedRows: "size",
      format: "i32",
      /** Where the first of the rows goes: a multiple of 32. */
      firstRow: "size",
      /** Per thread f32 [32 inputs][32 rows]. */
      scratch: "address",
      scratchBytes: "i32",
      /** Of the weights' grid, f32 [rows][groups], or 0. */
      scales: "address",
      /** A word that becomes 1 when one of the numbers may be NaN or infinite. */
      nonFinite: "address",
    },
  },
  /** Reads memory and does nothing with it. */
  readBytes: {
    fields: {
      start: "address",
      /** A multiple of 128 for every thread. */
      byteLength: "size",
      /** Per thread 16 bytes. */
      sink: "address",
    },
  },
  /** out[n] = x[rows[n]]; columns come in fours. */
  gatherRows: {
    fields: { out: "address", outStride: "i32", x: "address", xStride: "i32", cols: "i32" },
    lists: { rows: "i32" },
  },
  /** out[r] += Σ weight · x[slot] over the `perRow` terms of r; columns come in fours. */
  addExperts: {
    fields: { out: "address", outStride: "i32", x: "address", xStride: "i32", cols: "i32", rows: "i32", perRow: "i32" },
    lists: { terms: "expertTerm" },
  },
  /** out = keys of slots from `start` on, as f32. */
  readKeys: {
    fields: {
      out: "address",
      outStride: "i32",
      rows: "i32",
      start: "i32",
      kvHeads: "i32",
      keyDim: "i32",
      keys: "address",
      slots: "i32",
      ...codedKeys,
      /** Of codes, per thread what says where they lie, f32 [keyDim]. */
      scratch: "address",
      scratchBytes: "i32",
    },
  },
  /** out = every `every` rows of x as one; columns come in fours. */
  poolRows: { fields: { ...rowsToRows, cols: "i32", every: "i32", pool: "i32" } },
  /** See `Backend.keepLargest`: `count` of every `run` columns, or the share `mass` where that is not negative. */
  keepLargest: { fields: { ...rowsToRows, cols: "i32", run: "i32", count: "i32", mass: "f32" } },
  /** See `Backend.headScores`. */
  headScores: {
    fields: {
      out: "address",
      outStride: "i32",
      /** Columns of `out` that a head has. */
      room: "i32",
      q: "address",
      qStride: "i32",
      rows: "i32",
      k: "address",
      kStride: "i32",
      keys: "i32",
      queryHeads: "i32",
      kvHeads: "i32",
      keyDim: "i32",
      stride: "i32",
      scale: "f32",
      accumulate: "flag",
    },
  },
  /** Rows [lead, turned, run] become [turned, lead, run]. */
  swapAxes: { fields: { ...rowsToRows, lead: "i32", turned: "i32", run: "i32" } },
  /** See `Backend.morphemeScores`: `scale` or 0, `run` numbers of x behind each morpheme of a term. */
  morphemeScores: {
    fields: {
      ...({ ...rowsToRows, cols: "i32", table: "address", index: "address", scale: "address", order: "i32" } as const),
      ...({ morphemes: "i32", width: "i32", rank: "i32", run: "i32", accumulate: "flag" } as const),
    },
  },
  /** As `matvec` of groups firstGroup … endGroup − 1, whose columns lie anywhere: each where its word of `columns` says. */
  columnsMatvec: {
    fields: {
      /** Of columns u32 [cols]: addresses, of those that are not kept anything; of scales bf16 [groups][paddedRows]. */
      ...({ x: "address", cols: "i32", columns: "address", scales: "address" } as const),
      ...ofMatvec,
      ...({ firstGroup: "i32", endGroup: "i32" } as const),
    },
    lists: { segments: "segment", parts: "vectorPart" },
  },
  /** out[outputs[i]] = x · row i for rows that lie anywhere (pack/rows.ts), summed as `matvec` sums them. */
  rowsMatvec: {
    fields: {
      /** Of rows u32 [count]: addresses of rows [cols]; of outputs the columns of `out` that they make, or 0: row i makes column i. */
      ...({ x: "address", cols: "i32", rows: "address", outputs: "address", count: "i32", format: "i32" } as const),
      ...({ dot: "i32", threshold: "f32", out: "address", slices: "i32" } as const),
      /** f32 [count], or 0: of rows with gate ≤ 0 nothing is read, and the output is 0; those that are read are counted. */
      ...({ gate: "address", rowBytes: "i32" } as const),
      ...({ scratch: "address", scratchBytes: "i32" } as const),
    },
  },
} as const satisfies Readonly<Record<string, OperationTable>>;

/** The code behind the last operation. */
export const programEnd = 0;

export type OperationName = keyof typeof operations;

/** Of everything in `items` and `operations`, its words in order with their byte offsets; lengths of lists come last. */
export function wordsOf(record: OperationTable): { name: string; kind: Kind; offset: number }[] {
  const lengths = Object.keys(record.lists ?? {}).map((list): [string, Kind] => [`${list}Length`, "i32"]);
  return [...Object.entries(record.fields), ...lengths].map(([name, kind], n) => ({ name, kind, offset: 4 * n }));
}

/** What an operation's record is made of, in words: native kernels know it by those that they were compiled with. */
export function describeRecord(name: OperationName): string {
  const { fields, lists = {} }: OperationTable = operations[name];
  const named = (of: Fields) =>
    Object.entries(of)
      .map(([field, kind]) => `${field} ${kind}`)
      .join(", ");
  const described = Object.entries(lists).map(([list, item]) =>
    Object.hasOwn(items, item) ? `${list} of ${named(items[item as keyof typeof items])}` : `${list} of ${item}`,
  );
  return [named(fields), ...described].join("; ");
}
