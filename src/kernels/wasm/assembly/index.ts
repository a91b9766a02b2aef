import { programStart } from "../../program/layout";
import { attention } from "./attention";
import { dotBytes } from "./columns";
import { add, embed, gatedActivation, layerNorm, map, rmsNorm, rope, swapAxes } from "./elementwise";
import { addExperts, gatherRows } from "./experts";
import {
  Add, AddExperts, AppendKv, Attention, CodeKv, ColumnsMatvec, opColumnsMatvec, opRowsMatvec, RowsMatvec, AttentionMass, Embed, GatedActivation, GatherRows, HeadScores, KeepLargest, LayerNorm, Map, Matmul, Matvec, MorphemeScores, MoveKv, opAdd, opAddExperts, opAppendKv, opAttention, opAttentionMass, opCodeKv,
  opEmbed, opEnd, opGatedActivation, opGatherRows, opHeadScores, opKeepLargest, opLayerNorm, opMap, opMatmul, opMatvec, opMorphemeScores, opMoveKv, opPack, opPoolRows, opReadBytes, opReadKeys, opRmsNorm, opRope, opSwapAxes, opTopK, opUnpackRows, Pack,
  PoolRows, ReadBytes, ReadKeys, RmsNorm, Rope, SwapAxes, TopK, UnpackRows,
} from "./generated/records";
import { keepLargest } from "./inputChoice";
import { headScores, poolRows, readKeys } from "./keys";
import { appendKv, moveKv } from "./kv";
import { codeKv } from "./kvCodes";
import { attentionMass } from "./mass";
import { matmul } from "./matmul";
import { matvec } from "./matvec";
import { morphemeScores } from "./morphemes";
import { pack } from "./pack";
import { readBytes } from "./readBytes";
import { unpackRows } from "./sparsePanel";
import { columnsMatvec, rowsMatvec } from "./scattered";
import { barrier } from "./sync";
import { topK } from "./topk";

export { configure, park, spin, wake } from "./sync";

/**
 * Runs the program at `programStart`: see program/records.ts. Every thread runs
 * every record with its own index and all meet after each.
 */
export function run(thread: i32): void {
  let at: usize = programStart;
  let op = load<i32>(at);
  while (op != opEnd) {
    const a = at + 8;
    if (op == opMatvec) matvec(changetype<Matvec>(a), thread);
    else if (op == opMatmul) matmul(changetype<Matmul>(a), thread);
    else if (op == opRmsNorm) rmsNorm(changetype<RmsNorm>(a), thread);
    else if (op == opLayerNorm) layerNorm(changetype<LayerNorm>(a), thread);
    else if (op == opMap) map(changetype<Map>(a), thread);
    else if (op == opRope) rope(changetype<Rope>(a), thread);
    else if (op == opAppendKv) appendKv(changetype<AppendKv>(a), thread);
    else if (op == opCodeKv) codeKv(changetype<CodeKv>(a), thread);
    else if (op == opAttention) attention(changetype<Attention>(a), thread);
    else if (op == opAttentionMass) attentionMass(changetype<AttentionMass>(a), thread);
    else if (op == opMoveKv) moveKv(changetype<MoveKv>(a), thread);
    else if (op == opGatedActivation) gatedActivation(changetype<GatedActivation>(a), thread);
    else if (op == opAdd) add(changetype<Add>(a), thread);
    else if (op == opEmbed) embed(changetype<Embed>(a), thread);
    else if (op == opTopK) {
      if (thread == 0) topK(changetype<TopK>(a));
    } else if (op == opPack) pack(changetype<Pack>(a), thread);
    else if (op == opReadBytes) readBytes(changetype<ReadBytes>(a), thread);
    else if (op == opUnpackRows) unpackRows(changetype<UnpackRows>(a), thread);
    else if (op == opGatherRows) gatherRows(changetype<GatherRows>(a), thread);
    else if (op == opAddExperts) addExperts(changetype<AddExperts>(a), thread);
    else if (op == opReadKeys) readKeys(changetype<ReadKeys>(a), thread);
    else if (op == opPoolRows) poolRows(changetype<PoolRows>(a), thread);
    else if (op == opKeepLargest) keepLargest(changetype<KeepLargest>(a), thread);
    else if (op == opHeadScores) headScores(changetype<HeadScores>(a));
    else if (op == opSwapAxes) swapAxes(changetype<SwapAxes>(a), thread);
    else if (op == opMorphemeScores) morphemeScores(changetype<MorphemeScores>(a), thread);
    else if (op == opColumnsMatvec) columnsMatvec(changetype<ColumnsMatvec>(a), thread);
    else if (op == opRowsMatvec) rowsMatvec(changetype<RowsMatvec>(a), thread);
    at = a + ((<usize>load<i32>(at, 4)) << 2);
    // Read before the barrier: once the last one is passed, the host may record the next program.
    op = load<i32>(at);
    barrier();
  }
}

/** Whether the relaxed dot multiplies signed by unsigned bytes exactly on this machine (it may saturate or sign-extend). */
export function byteDotIsExact(): i32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0;
  const x = i8x16(127, 127, 127, 127, -128, -128, -128, -128, -127, 127, -127, 127, 1, -1, 127, -128);
  const w = i8x16(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -128, -128, -1, 1, -128, -1); // as unsigned: 255, …, 128
  const sums = dotBytes(x, w, i32x4.splat(1000));
  const expected = i32x4(
    1000 + 4 * 127 * 255,
    1000 - 4 * 128 * 255,
    1000 - 127 * 255 + 127 * 255 - 127 * 128 + 127 * 128,
    1000 + 255 - 1 + 127 * 128 - 128 * 255,
  );
  return i32(i32x4.all_true(i32x4.eq(sums, expected)));
}
