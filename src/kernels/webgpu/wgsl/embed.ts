import { type GpuFormat, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";

/** Rows of one dispatch: their ids travel in the parameter block. */
export const embedRows = 32;

export const embedThreads = 64;

/**
 * out[r] = row ids[r] of the tiles in one chunk; rows whose tile lies in another chunk are left alone. Ids are in the table,
 * or the first word of each of `pairs`.
 */
export const embed = (format: GpuFormat) =>
  kernel({
    name: `embed ${format.format.id}`,
    params: {
      cols: "u32",
      rows: "u32",
      groups: "u32",
      firstTile: "u32",
      tiles: "u32",
      unitBase: "u32",
      outOffset: "u32",
      outStride: "u32",
      firstPair: "u32",
      usePairs: "u32",
    },
    tableLength: embedRows / 4,
    buffers: { outs: readWrite(), units: read("vec4<u32>"), pairs: read("u32") },
    code: /* wgsl */ `
${tileFunctions(format)}
fn decode(u: vec4<u32>, quad: u32) -> vec4<f32> {
  var rows = array<vec4<f32>, ${format.rows.length}>(${format.rows.map((row, i) => (format.scaled ? `${row} * ${format.steps[i]}` : row)).join(", ")});
  return rows[quad];
}
@compute @workgroup_size(${embedThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  var row = p.table[id.y / 4u][id.y % 4u];
  if (p.usePairs != 0u) { row = pairs[2u * (p.firstPair + id.y)]; }
  let tile = row / TILE_ROWS - p.firstTile; // wraps for tiles before the first
  if (c >= p.cols || tile >= p.tiles) { return; }
  let width = tileWidth(p.rows, p.firstTile + tile);
  let base = p.unitBase + tile * tileUnits(p.groups);
  let lane = row % TILE_ROWS / UNIT_ROWS;
  let within = row % UNIT_ROWS;
  let u = units[base + columnUnit(width, c / 32u, c % 32u) + lane];
  let value = decode(u, within / 4u)[within % 4u];
  outs[p.outOffset + id.y * p.outStride + c] = value${format.scaled ? " * scale(base, width, c / 32u, row % TILE_ROWS)" : ""};
}
${format.scaled ? scaleFunction : ""}`,
  });

/** The scale of one row: in a block of 8, word k holds row k in its low half and row k + 4 in its high half. */
const scaleFunction = /* wgsl */ `
fn scale(base: u32, width: u32, group: u32, row: u32) -> f32 {
  let word = units[base + group * groupUnits(width) + row / 8u][row % 4u];
  return bitcast<f32>(select(word & 0xffff0000u, word << 16u, row % 8u < 4u));
}`;
