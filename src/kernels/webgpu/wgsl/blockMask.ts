import { rowsOfGroup } from "../../sight.js";

/**
 * The word of a mask that says which slots of a block a query row sees. `sight` lies as `blockMaskWords` puts it.
 */
export const wordOf = /* wgsl */ `
fn wordOf(mask: u32, j: u32, kvHead: u32) -> u32 {
  if (mask == 0xffffffffu) { return mask; }
  let table = sight[kvHead * p.group + j % p.group];
  return sight[p.bitsAt + (mask * p.tables + table) * ${rowsOfGroup}u + j / p.group % ${rowsOfGroup}u];
}`;
