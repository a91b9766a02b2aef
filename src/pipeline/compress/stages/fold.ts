import { divideChannels, divideRows, type InputStatistics, multiplyColumns } from "../../../compress/index.js";
import { type TapSite, tapSites } from "../../../model/index.js";
import type { BlockMatrix, DecoderBlock } from "../block.js";

/** Whether factors of a site's channels can go into whatever makes it: not into value heads that several heads share. */
export function foldable({ sizes }: DecoderBlock, site: TapSite): boolean {
  return site !== "attentionOutput" || sizes.kvHeads === sizes.queryHeads;
}

export const consumersOf = (block: DecoderBlock, site: TapSite): BlockMatrix[] =>
  tapSites[site].map((projection) => block.matrices.get(projection)!);

/**
 * Divides the input channels of a site by factors and multiplies the columns of all matrices that read it, so that in
 * real numbers nothing changes: a norm's weight, the rows of up_proj or the rows of v_proj take the division.
 * @returns what enters the site afterwards
 */
export function foldFactors(
  block: DecoderBlock,
  site: TapSite,
  factors: Float32Array,
  statistics: InputStatistics,
): InputStatistics {
  for (const matrix of consumersOf(block, site)) {
    matrix.weight = multiplyColumns(matrix.weight, factors);
    matrix.folded = true;
  }
  const { inputNorm, mlpNorm } = block.roles;
  const norms: Partial<Record<TapSite, string>> = { attentionInput: inputNorm.name, mlpInput: mlpNorm.name };
  const makers = { attentionOutput: "v_proj", mlpHidden: "up_proj" } as const;
  const norm = norms[site];
  if (norm !== undefined) divideVector(block, norm, factors);
  else {
    const maker = block.matrices.get(makers[site as keyof typeof makers])!;
    maker.weight = divideRows(maker.weight, maker.cols, factors);
    maker.folded = true;
    if (maker.biasName !== undefined) divideVector(block, maker.biasName, factors);
  }
  return statistics.dividedBy(factors);
}

function divideVector(block: DecoderBlock, name: string, factors: Float32Array): void {
  const vector = block.vectors.get(name)!;
  vector.values = divideChannels(vector.values, factors);
  vector.folded = true;
}
