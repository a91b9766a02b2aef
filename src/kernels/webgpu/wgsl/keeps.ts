/**
 * `keeps`: whether an input is multiplied: |x| > threshold, or NaN, which must show in the result; a negative threshold keeps all.
 * Bits of magnitudes lie in the order of the values with NaN behind infinity, and WGSL lets a driver assume of floats that there
 * is none.
 */
export const keepsFunction = /* wgsl */ `
fn keeps(x: f32, threshold: f32) -> bool { return (bitcast<i32>(x) & 0x7fffffff) > bitcast<i32>(threshold); }`;
