import { shareStart } from "./elementwise";
import { MorphemeScores } from "./generated/records";
import { mulAdd, sumLanes } from "./math";

/** A thread takes a run of the scores. */
export function morphemeScores(a: MorphemeScores, thread: i32): void {
  const cols = a.cols;
  const total = a.rows * cols;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / cols;
    const i = n % cols;
    const x = a.x + ((<usize>row * <usize>a.xStride) << 2);
    const own = a.index + ((<usize>i * <usize>a.order) << 2);
    let score = a.order == 1 ? lookedUp(a, x, <i32>load<f32>(own)) : contracted(a, x, own);
    if (a.scale != 0) score *= load<f32>(a.scale + ((<usize>i) << 2));
    const at = a.out + ((<usize>row * <usize>a.outStride + <usize>i) << 2);
    store<f32>(at, a.accumulate ? load<f32>(at) + score : score);
  }
}

/** Rows of one morpheme: their products have been made. */
function lookedUp(a: MorphemeScores, x: usize, morpheme: i32): f32 {
  let sum: f32 = 0;
  for (let k = 0; k < a.rank; k++) sum += load<f32>(x + ((<usize>(k * a.morphemes + morpheme)) << 2));
  return sum;
}

/** The last digit is summed in fours, those before it make one factor. */
function contracted(a: MorphemeScores, x: usize, own: usize): f32 {
  const width = a.width;
  const bytes = (<usize>width) << 2;
  const runBytes = (<usize>a.run) << 2;
  const order = a.order;
  const head = <usize>load<f32>(own + ((<usize>(order - 1)) << 2));
  const inner = <usize>load<f32>(own + ((<usize>(order - 2)) << 2));
  let sums = f32x4.splat(0);
  for (let k = 0; k < a.rank; k++) {
    const term = <usize>k * <usize>a.morphemes;
    const vector = a.table + (term + inner) * bytes;
    let source = x + (term + head) * runBytes;
    const end = source + runBytes;
    let prefix = 0;
    for (; source < end; source += bytes) {
      let share: f32 = 1;
      let rest = prefix++;
      for (let j = order - 3; j >= 0; j--) {
        const morpheme = <usize>load<f32>(own + ((<usize>j) << 2));
        share *= load<f32>(a.table + (term + morpheme) * bytes + ((<usize>(rest % width)) << 2));
        rest /= width;
      }
      let dot = f32x4.mul(v128.load(source), v128.load(vector));
      for (let c: usize = 16; c < bytes; c += 16) dot = mulAdd(v128.load(source + c), v128.load(vector + c), dot);
      sums = mulAdd(dot, f32x4.splat(share), sums);
    }
  }
  return sumLanes(sums);
}
