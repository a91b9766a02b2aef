import { divideChannels, divideRows, InputStatistics, multiplyColumns } from "../../../compress/index.js";
import type { TapSite } from "../../../model/index.js";
import type { BlockInput, DecoderBlock, InputKey, MatrixKey } from "../block.js";

/** Whether factors of a site's channels can go into whatever makes it: not into value heads that several heads share. */
export function foldable({ sizes }: DecoderBlock, { site }: BlockInput): boolean {
  return site !== "attentionOutput" || sizes.kvHeads === sizes.queryHeads;
}

/** What enters a place, all parts together that saw a token. */
export function statisticsOf(
  { keys }: BlockInput,
  statistics: ReadonlyMap<InputKey, InputStatistics>,
): InputStatistics {
  const parts = keys.map((key) => statistics.get(key)!);
  return parts.length === 1 ? parts[0] : InputStatistics.merged(parts.filter(({ tokens }) => tokens > 0));
}

/**
 * Divides the input channels of a place by factors and multiplies the columns of all matrices that read it, so that in
 * real numbers nothing changes: a norm's weight, the rows of up_proj or the rows of v_proj take the division, and a router
 * that reads the norm too is multiplied like the matrices.
 * @returns what is known of the place afterwards
 */
export function foldFactors(
  block: DecoderBlock,
  { site, keys, expert, readers }: BlockInput,
  factors: Float32Array,
  statistics: ReadonlyMap<InputKey, InputStatistics>,
): [InputKey, InputStatistics][] {
  for (const matrix of readers) {
    matrix.weight = multiplyColumns(matrix.weight, factors);
    matrix.folded = true;
  }
  const { inputNorm, mlpNorm, router } = block.roles;
  const norms: Partial<Record<TapSite, string>> = { attentionInput: inputNorm.name, mlpInput: mlpNorm.name };
  const norm = norms[site];
  if (norm !== undefined) divideVector(block, norm, factors);
  else {
    const upProj: MatrixKey = expert === undefined ? "up_proj" : `experts.${expert}.up_proj`;
    const maker = block.matrices.get(site === "mlpHidden" ? upProj : "v_proj")!;
    maker.weight = divideRows(maker.weight, maker.cols, factors);
    maker.folded = true;
    if (maker.biasName !== undefined) divideVector(block, maker.biasName, factors);
  }
  if (site === "mlpInput" && router !== undefined) {
    const vector = block.vectors.get(router.weight.name)!;
    vector.values = multiplyColumns(vector.values, factors);
    vector.folded = true;
  }
  return keys.map((key) => [key, statistics.get(key)!.dividedBy(factors)]);
}

function divideVector(block: DecoderBlock, name: string, factors: Float32Array): void {
  const vector = block.vectors.get(name)!;
  vector.values = divideChannels(vector.values, factors);
  vector.folded = true;
}
