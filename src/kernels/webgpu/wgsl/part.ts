/**
 * Where a workgroup of a product stands: `place0` and `place1` become the two rows of the table of the part that
 * `workgroup.x` belongs to; the first word of `place0` is the first workgroup of its part.
 */
export const findPart = /* wgsl */ `
  var part = 0u;
  while (part + 1u < p.parts && workgroup.x >= p.table[2u * part + 2u].x) { part += 1u; }
  let place0 = p.table[2u * part];
  let place1 = p.table[2u * part + 1u];`;
