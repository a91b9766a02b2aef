import type { DataReader, FileMetaData, PageHeader, SchemaTree } from "hyparquet";
import { FormatError } from "../../core/index.js";

/** A data set of the size of those that models are evaluated on; what it expands to in memory is bounded by these. */
const maxRows = 5_000_000;
const maxValues = 50_000_000;
const maxPageBytes = 256 * 2 ** 20;
const maxColumns = 1000;
/** Levels of lists and groups. */
const maxDepth = 16;

/** The parts of the library that are not its front door. */
interface Library {
  parquetHeader(reader: DataReader): PageHeader;
  getSchemaPath(schema: FileMetaData["schema"], path: string[]): SchemaTree[];
  getMaxRepetitionLevel(path: SchemaTree[]): number;
  getMaxDefinitionLevel(path: SchemaTree[]): number;
  snappyUncompress(input: Uint8Array, output: Uint8Array): void;
}

/**
 * Goes over all pages of a file before the library decodes them: counts and lengths in a file decide how much it allocates and
 * how often it repeats a value, and it believes them.
 * @throws FormatError for counts that do not go together or are beyond what a data set has
 */
export async function checkParquetPages(bytes: Uint8Array, metadata: FileMetaData, file: string): Promise<void> {
  const [{ parquetHeader }, schema, { snappyUncompress }] = await Promise.all([
    import("hyparquet/src/column.js"),
    import("hyparquet/src/schema.js"),
    import("hyparquet"),
  ]);
  const library: Library = { ...schema, parquetHeader, snappyUncompress };
  const fail = (field: string, problem: string, expected?: string): never => {
    throw new FormatError({ file, field, problem, expected });
  };
  let [rows, values] = [0, 0];
  if (metadata.schema.length > 4 * maxColumns) fail("schema", `${metadata.schema.length} columns and groups`);
  for (const [g, group] of metadata.row_groups.entries()) {
    rows += Number(group.num_rows);
    if (!(Number(group.num_rows) >= 0 && rows <= maxRows)) fail("num_rows", `${rows} rows`, `at most ${maxRows}`);
    if (group.columns.length > maxColumns) fail(`row group ${g}`, `${group.columns.length} columns`);
    for (const { meta_data: column } of group.columns) {
      if (column === undefined) return fail(`row group ${g}`, "a column without a description");
      const field = column.path_in_schema.join(".");
      const path = library.getSchemaPath(metadata.schema, column.path_in_schema);
      if (path.length > maxDepth) fail(field, `nested ${path.length} levels deep`, `at most ${maxDepth}`);
      const start = Number(column.dictionary_page_offset || column.data_page_offset);
      const size = Number(column.total_compressed_size);
      if (!(start >= 0 && size >= 0 && start + size <= bytes.length)) {
        fail(field, `bytes ${start} to ${start + size} of a file of ${bytes.length}`);
      }
      const chunk = bytes.subarray(start, start + size);
      const levels = {
        repetition: library.getMaxRepetitionLevel(path),
        definition: library.getMaxDefinitionLevel(path),
      };
      const counted = checkChunk(library, chunk, { codec: column.codec, type: column.type, levels }, (problem) =>
        fail(field, problem),
      );
      values += counted;
      if (values > maxValues) fail(field, `more than ${maxValues} values in the file`);
      if (levels.repetition === 0 && counted !== Number(group.num_rows))
        fail(field, `${counted} values in ${group.num_rows} rows`);
    }
  }
}

interface ChunkFacts {
  codec: string;
  type: string;
  levels: { repetition: number; definition: number };
}

/** @returns values of the chunk */
function checkChunk(
  { parquetHeader, snappyUncompress }: Library,
  chunk: Uint8Array,
  { codec, type, levels }: ChunkFacts,
  fail: (problem: string) => never,
): number {
  if (codec !== "UNCOMPRESSED" && codec !== "SNAPPY")
    fail(`compressed by ${codec}; write the file with snappy, or as JSON lines`);
  const reader = { view: new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength), offset: 0 };
  let values = 0;
  while (reader.offset < chunk.length) {
    const header = parquetHeader(reader);
    const { compressed_page_size: stored, uncompressed_page_size: size } = header;
    if (!(stored >= 0 && reader.offset + stored <= chunk.length)) fail("a page beyond the end of its column");
    if (!(size >= 0 && size <= maxPageBytes)) fail(`a page of ${size} bytes`);
    const page = chunk.subarray(reader.offset, reader.offset + stored);
    reader.offset += stored;
    const plain = (input: Uint8Array, length: number) => {
      if (codec === "UNCOMPRESSED") return input;
      // The shortest copy of Snappy's makes 64 bytes of 3.
      if (length > 64 * (input.length + 1)) fail(`a page that grows from ${input.length} to ${length} bytes`);
      const output = new Uint8Array(length);
      snappyUncompress(input, output);
      return output;
    };
    const { data_page_header: v1, data_page_header_v2: v2, dictionary_page_header: dictionary } = header;
    const described = v1 ?? v2 ?? dictionary;
    if (described === undefined) return fail(`a page of the kind ${header.type}`);
    const count = described.num_values;
    if (!(count >= 0 && values + count <= maxValues)) fail(`${count} values in a page`);
    if (header.type === "DICTIONARY_PAGE") {
      // Every entry of a dictionary takes a bit at least.
      if (count > 8 * size) fail(`${count} entries in a dictionary of ${size} bytes`);
      continue;
    }
    const encoding = (v1 ?? v2)!.encoding;
    if (
      encoding !== "PLAIN" &&
      encoding !== "RLE" &&
      encoding !== "RLE_DICTIONARY" &&
      encoding !== "PLAIN_DICTIONARY"
    ) {
      fail(`values encoded as ${encoding}; write the file with plain or dictionary encoding`);
    }
    values += count;
    const runs = { fail, count };
    let data: Uint8Array;
    if (v2 === undefined) {
      data = plain(page, size);
      let at = 0;
      for (const level of [levels.repetition, levels.definition]) {
        if (level > 0) at = checkPrefixedRuns(data, at, bitsOf(level), runs);
      }
      data = data.subarray(at);
    } else {
      const { repetition_levels_byte_length: r, definition_levels_byte_length: d } = v2;
      if (!(r >= 0 && d >= 0 && r + d <= page.length && r + d <= size)) fail("levels beyond the end of their page");
      if (levels.repetition > 0) checkRuns(page.subarray(0, r), bitsOf(levels.repetition), runs);
      if (levels.definition > 0) checkRuns(page.subarray(r, r + d), bitsOf(levels.definition), runs);
      if (!(v2.num_nulls >= 0 && v2.num_nulls <= count)) fail(`${v2.num_nulls} empty values of ${count}`);
      const rest = page.subarray(r + d);
      data = v2.is_compressed === false ? rest : plain(rest, size - r - d);
    }
    // Empty values are not stored, so that runs may end before the count.
    if (encoding === "RLE") checkPrefixedRuns(data, 0, 1, { ...runs, atMost: true });
    else if (encoding !== "PLAIN" && data.length > 0 && type !== "BOOLEAN") {
      checkRuns(data.subarray(1), data[0], { ...runs, atMost: true });
    }
  }
  return values;
}

const bitsOf = (level: number) => 32 - Math.clz32(level);

interface Runs {
  count: number;
  /** Whether fewer values than `count` may be there. */
  atMost?: boolean;
  fail(problem: string): never;
}

/** Runs with their length in four bytes before them. @returns where they end */
function checkPrefixedRuns(page: Uint8Array, at: number, bits: number, runs: Runs): number {
  if (at + 4 > page.length) runs.fail("a page that is too short");
  const length = new DataView(page.buffer, page.byteOffset + at, 4).getUint32(0, true);
  const end = at + 4 + length;
  if (end > page.length) runs.fail("levels beyond the end of their page");
  checkRuns(page.subarray(at + 4, end), bits, runs);
  return end;
}

/** Checks that the runs of a run-length and bit-packed hybrid make no more values than are said to be there. */
function checkRuns(bytes: Uint8Array, bits: number, { count, atMost = false, fail }: Runs): void {
  if (bits > 32) fail(`values of ${bits} bits`);
  let [at, seen] = [0, 0];
  while (seen < count && (at < bytes.length || !atMost)) {
    let [head, shift] = [0, 0];
    for (;;) {
      if (at >= bytes.length || shift > 28) fail("runs that end too early");
      const byte = bytes[at++];
      head += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
      shift += 7;
    }
    const packed = head % 2 === 1;
    const repeated = Math.floor(head / 2) * (packed ? 8 : 1);
    // Packed values come in groups of eight, of which the last may be filled up.
    if (repeated === 0 || seen + repeated > count + (packed ? 7 : 0)) fail(`runs of more than ${count} values`);
    seen += repeated;
    at += packed ? (repeated / 8) * bits : Math.ceil(bits / 8);
    // A last group of packed values may lack the bytes that hold nothing.
    if (at > bytes.length + (packed && seen >= count ? bits : 0)) fail("runs that end too early");
  }
}
