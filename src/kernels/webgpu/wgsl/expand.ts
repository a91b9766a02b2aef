import { type SparseFormatId, sparseFormats } from "../../../pack/index.js";
import { gpuFormat, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { sparseAccess } from "./sparseAccess.js";

export const expandThreads = 64;

/** Tiles of a matrix that leaves zeros out, as those of the dense format its codes come from. One thread per unit of 16 bytes. */
export const expand = (format: SparseFormatId) => {
  const { scaled, code } = sparseAccess[format];
  const layout = gpuFormat(sparseFormats[format].value);
  const { unitRows } = layout;
  // Where the code of row i of a unit lies: which word, and how far up.
  const places = {
    8: (i: number) => [i % 4, Math.floor(i / 4) * 16],
    16: (i: number) => [Math.floor(i / 4), (i % 4) * 8],
    32: (i: number) => [Math.floor((i % 16) / 4), (i % 4) * 8 + Math.floor(i / 16) * 4],
  } as Record<number, (i: number) => number[]>;
  const bits = Array.from({ length: unitRows }, (_, i) => {
    const [word, shift] = places[unitRows](i);
    return `unit[${word}] |= codeAt(tile, column, first + ${i}u) << ${shift}u;`;
  });
  return kernel({
    name: `expand ${format}`,
    params: { cols: "u32", firstTile: "u32" },
    buffers: { units: readWrite("vec4<u32>"), words: read("u32"), places: read("vec4<u32>") },
    code: /* wgsl */ `
${tileFunctions(layout)}
${code}
var<private> xTile: array<f32, 1>;
@compute @workgroup_size(${expandThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let index = p.firstTile + id.y;
  let place = places[2u * index];
  let tile = tileOf(place, p.cols);
  let width = tile.blocks * 32u / UNIT_ROWS;
  let group = id.x / groupUnits(width);
  if (group >= tile.groups) { return; }
  let within = id.x % groupUnits(width);
  var unit = vec4<u32>();
  ${
    scaled
      ? /* wgsl */ `
  if (within < scaleUnits(width)) {
    // Scales lie in both formats in the same order.
    let at = (tile.start + SCALES_AT(tile) + group * tile.blocks * 64u) / 4u + within * 4u;
    units[places[2u * index + 1u].x + id.x] = vec4<u32>(words[at], words[at + 1u], words[at + 2u], words[at + 3u]);
    return;
  }`
      : ""
  }
  let column = group * 32u + (within - scaleUnits(width)) / width;
  let first = (within - scaleUnits(width)) % width * UNIT_ROWS;
  if (column < p.cols) {
    ${bits.join("\n    ")}
  } else {
    unit = vec4<u32>(${{ 8: "0u", 16: "0x80808080u", 32: "0x88888888u" }[unitRows]});
  }
  units[places[2u * index + 1u].x + id.x] = unit;
}`,
  });
};
