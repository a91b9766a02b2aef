/**
 * WGSL orders no writes between workgroups, so a number that one leaves for another travels in an atomic word of `exchange`
 * that is 0 while it is empty: whoever takes it, with an exchange, empties it again, until it holds something. All words are
 * 0 between dispatches.
 */
export const exchangeFunctions = /* wgsl */ `
/** A 0 travels as −0. */
fn leave(at: u32, value: f32) {
  let bits = bitcast<u32>(value);
  atomicStore(&exchange[at], select(bits, 0x80000000u, bits == 0u));
}

/** The value of a word taken from the exchange; waits for it if it was still empty. */
fn arrived(taken: u32, at: u32) -> f32 {
  var bits = taken;
  // The writer has run: its write is under way. The bound turns a broken driver into a wrong number, not a hung GPU.
  for (var tries = 0u; bits == 0u && tries < 1000000u; tries += 1u) { bits = atomicExchange(&exchange[at], 0u); }
  return bitcast<f32>(bits);
}

/** Whether this workgroup is the last of \`count\` to come to a ticket; for its thread 0. */
fn comesLast(ticket: u32, count: u32) -> bool {
  let last = atomicAdd(&exchange[ticket], 1u) == count - 1u;
  if (last) { atomicStore(&exchange[ticket], 0u); }
  return last;
}`;
