import { ReadBytes } from "./generated/records";
import { threadCount } from "./sync";

/** Reads memory from end to end and does nothing with it: the ceiling that matrix-vector products are held against. */
export function readBytes(a: ReadBytes, thread: i32): void {
  const share = a.byteLength / threadCount();
  let at = a.start + <usize>thread * share;
  const end = at + share;
  let s0 = i32x4.splat(0);
  let s1 = s0;
  let s2 = s0;
  let s3 = s0;
  for (; at < end; at += 64) {
    s0 = v128.or(s0, v128.load(at));
    s1 = v128.or(s1, v128.load(at, 16));
    s2 = v128.or(s2, v128.load(at, 32));
    s3 = v128.or(s3, v128.load(at, 48));
  }
  v128.store(a.sink + ((<usize>thread) << 4), v128.or(v128.or(s0, s1), v128.or(s2, s3)));
}
