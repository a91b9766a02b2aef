import { type WeightFormat, type WeightFormatId, weightFormats } from "../../pack/index.js";

/**
 * How the kernels read one weight format. All kernels are written once over "units": 16 bytes of one column, which hold
 * `unitRows` consecutive rows.
 *
 * A matrix lies on the GPU as row tiles of `tileRows` rows, each packed by itself as `pack` does, one after another. So a
 * workgroup that owns a tile reads one run of memory from end to end, inputs that are dropped leave holes of at least a
 * cache line, and a matrix is packed while its rows are read. The last tile of a part has only the rows it needs,
 * rounded up to 32.
 */
export interface GpuFormat {
  readonly format: WeightFormat;
  /** Rows in one unit. */
  readonly unitRows: number;
  readonly tileRows: number;
  /** Whether groups of 32 columns begin with one bf16 scale per row. */
  readonly scaled: boolean;
  /** WGSL expressions, each a vec4<f32> of four consecutive rows of the unit `u: vec4<u32>`; without scale and step. */
  readonly rows: readonly string[];
  readonly halves?: Halves;
  /** What each of `rows` is to be multiplied with besides the scale, in WGSL; powers of two. Empty: nothing. */
  readonly steps: readonly string[];
}

/** How codes are multiplied in f16. */
export interface Halves {
  /** As `GpuFormat.rows`, each a vec4<f16> of the four in the order 0, 2, 1, 3, without scale and without need of steps. */
  readonly rows: readonly string[];
  /**
   * What x is divided by before it becomes f16, a power of two: the sum of a group's products is finite where no |x| is above
   * 4,000, and is as a rule far beyond that.
   */
  readonly range: number;
}

const words = ["u.x", "u.y", "u.z", "u.w"];

/** 2²³ as f32: its ulp is 1, so a code of few bits ORed into the mantissa is that number plus the code. */
const two23 = 2 ** 23;

/**
 * Four codes of `bits` bits, one from each byte of a word, `shift` bits up. They stay where they are in their half of the
 * word: the code of an odd byte comes out 256 times as large, which a step takes back for a whole sum at once.
 */
const codes = (word: string, shift: number, bits: number) => {
  const mask = (2 ** bits - 1) << shift;
  const zeros = [0, 8].map((byte) => `${two23 + 2 ** (bits - 1 + shift + byte)}.0`);
  const halves = `vec4<u32>(${word}, ${word}, ${word} >> 16u, ${word} >> 16u)`;
  const masked = `${halves} & vec4<u32>(${mask}u, ${mask << 8}u, ${mask}u, ${mask << 8}u)`;
  return `(bitcast<vec4<f32>>((${masked}) | vec4<u32>(0x4b000000u)) - vec4<f32>(${[...zeros, ...zeros].join(", ")}))`;
};

/** 2¹⁰ as f16: its ulp is 1. */
const two10 = 2 ** 10;

/**
 * As `codes`, in f16, two in a word at a time. What lies `shift` bits up comes out 2^shift times as large, which the
 * subtraction takes back.
 */
const halfCodes = (word: string, shift: number, bits: number) => {
  const mask = ((2 ** bits - 1) * 0x10001) << shift;
  const masked = `vec2<u32>(${word}, ${word} >> 8u) & vec2<u32>(${mask}u)`;
  const number = `bitcast<vec4<f16>>((${masked}) | vec2<u32>(0x64006400u))`;
  const zero = two10 / 2 ** shift + 2 ** (bits - 1);
  return shift === 0
    ? `(${number} - vec4<f16>(${zero}.0h))`
    : `fma(${number}, vec4<f16>(${2 ** -shift}h), vec4<f16>(-${zero}.0h))`;
};

/** The steps that belong to `codes`, for a unit of four words. */
const codeSteps = (shift: number) => {
  const step = [0, 8].map((byte) => `${2 ** -(shift + byte)}`).join(", ");
  return words.map(() => `vec4<f32>(${step}, ${step})`);
};

const table: Readonly<Record<WeightFormatId, Omit<GpuFormat, "format" | "unitRows">>> = {
  f32: { tileRows: 64, scaled: false, rows: ["bitcast<vec4<f32>>(u)"], steps: [] },
  bf16: {
    tileRows: 128,
    scaled: false,
    rows: ["bitcast<vec4<f32>>(u << vec4<u32>(16u))", "bitcast<vec4<f32>>(u & vec4<u32>(0xffff0000u))"],
    steps: [],
  },
  q8: {
    tileRows: 128,
    scaled: true,
    rows: words.map((word) => codes(word, 0, 8)),
    halves: { rows: words.map((word) => halfCodes(word, 0, 8)), range: 256 },
    steps: codeSteps(0),
  },
  q4: {
    tileRows: 128,
    scaled: true,
    rows: [0, 4].flatMap((shift) => words.map((word) => codes(word, shift, 4))),
    halves: { rows: [0, 4].flatMap((shift) => words.map((word) => halfCodes(word, shift, 4))), range: 64 },
    steps: [0, 4].flatMap(codeSteps),
  },
};

export function gpuFormat(id: WeightFormatId, tileRows = table[id].tileRows): GpuFormat {
  const entry = table[id];
  return { format: weightFormats[id], unitRows: entry.rows.length * 4, ...entry, tileRows };
}

/** WGSL vec4<f32> factors of a unit's rows: scale times step. Scales lie as bf16 does, 8 rows in `s0`, 8 in `s1` … */
export function scaleRows({ unitRows, steps }: Pick<GpuFormat, "unitRows" | "steps">): string[] {
  return Array.from({ length: unitRows / 8 }, (_, i) => [
    `(bitcast<vec4<f32>>(s${i} << vec4<u32>(16u)) * ${steps[2 * i]})`,
    `(bitcast<vec4<f32>>(s${i} & vec4<u32>(0xffff0000u)) * ${steps[2 * i + 1]})`,
  ]).flat();
}

/**
 * WGSL functions on places inside a tile, in units. `width` is the number of units in a column of the tile, `group` and
 * `column` (0 … 31 within the group) say which column.
 */
export function tileFunctions({ unitRows, tileRows, scaled }: GpuFormat): string {
  const scaleUnits = scaled ? `width * ${unitRows / 8}u` : "0u";
  return /* wgsl */ `
const UNIT_ROWS = ${unitRows}u;
const TILE_ROWS = ${tileRows}u;
fn tileWidth(rows: u32, tile: u32) -> u32 {
  return min(TILE_ROWS, (rows + 31u) / 32u * 32u - tile * TILE_ROWS) / UNIT_ROWS;
}
fn scaleUnits(width: u32) -> u32 { return ${scaleUnits}; }
fn groupUnits(width: u32) -> u32 { return scaleUnits(width) + 32u * width; }
fn columnUnit(width: u32, group: u32, column: u32) -> u32 {
  return group * groupUnits(width) + scaleUnits(width) + column * width;
}
fn tileUnits(groups: u32) -> u32 { return groups * groupUnits(TILE_ROWS / UNIT_ROWS); }
`;
}
