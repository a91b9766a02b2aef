import { Random } from "../../core/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import { weightFormats } from "../../pack/index.js";
import { zeroCounters } from "../counters.js";
import type { Context } from "./context.js";
import { chosenAmong, type ExpertKernels, multiplyChosen, splitExperts, upload } from "./experts.js";
import { gpuFormat } from "./formats.js";
import { expertCandidates, type FormatKernels, loadMatrix, toleranceOf } from "./matrix.js";
import { type ActivationPool, readRows } from "./storage.js";
import { attempt, source, wrongProduct } from "./testProduct.js";

/**
 * The products of chosen experts in one format, if they compute right on this device; and what was wrong.
 * @param dense the kernels of the format that were checked
 */
export async function checkExpertFormat(
  context: Context,
  pool: ActivationPool,
  formatId: WeightFormatId,
  dense: FormatKernels,
): Promise<{ kernels?: ExpertKernels; problems: string[] }> {
  const { device } = context;
  const format = weightFormats[formatId];
  const random = new Random(4);
  const [experts, cols, thresholds] = [3, 200, [0.4, 0.9]];
  const partRows = [gpuFormat(formatId).tileRows + 36, 40];
  const parts = Array.from({ length: experts }, (_, expert) =>
    partRows.map((rows) => {
      const stored = Float32Array.from({ length: rows * cols }, () => random.normal());
      const values = format.unpack(format.pack(stored, rows, cols), rows, cols);
      return { source: source(`self-check of expert ${expert}`, stored, rows, cols), values };
    }),
  );
  const sources = parts.flat().map((part) => part.source);
  const whole = await loadMatrix(device, sources, formatId, dense, {});
  const matrices = splitExperts(whole, experts);
  const inputs = Float32Array.from({ length: 2 * cols }, () => random.normal());
  const [x, out] = [pool.take(2, cols), pool.take(2, matrices[0].rows)];
  device.gpu.queue.writeBuffer(x.memory.buffer, 0, inputs);
  const slots = { experts: Uint32Array.of(2, 0), rows: new Uint32Array(2), weights: new Float32Array(2) };
  const problems: string[] = [];

  const works = async (kernels: ExpertKernels, name: string, given?: readonly number[]): Promise<boolean> => {
    const chosen = chosenAmong(matrices, kernels);
    const list = { ...matrices[0], experts, matrices, chosen };
    upload(context, { rows: 1, perRow: 2, slotCount: 2, slots, slotsOfRows: Uint32Array.of(0, 1) });
    const counters = zeroCounters();
    const result = await attempt(context, name, problems, () => {
      const routing = { rows: 1, perRow: 2, slotCount: 2, onDevice: true } as const;
      multiplyChosen(context, out, x, list, routing, { from: "slots", thresholds: given }, counters);
      return readRows(context, out);
    });
    if (result === undefined) return false;
    for (const [slot, expert] of slots.experts.entries()) {
      const product = {
        result: result.subarray(slot * out.cols, (slot + 1) * out.cols),
        inputs: inputs.subarray(slot * cols, (slot + 1) * cols),
        rows: 1,
        cols,
        parts: parts[expert].map(({ values }, p) => ({ ...matrices[0].parts[p], values })),
        thresholds: given,
      };
      const problem = wrongProduct(product, toleranceOf(given === undefined ? kernels.dense : kernels.sparse));
      if (problem !== undefined) {
        problems.push(`${name} ${problem}`);
        return false;
      }
    }
    return true;
  };

  try {
    for (const kernels of expertCandidates(device, gpuFormat(formatId))) {
      const { dense: denseKernel, sparse } = kernels;
      if ((await works(kernels, denseKernel.name)) && (await works(kernels, sparse.name, thresholds))) {
        return { kernels, problems };
      }
    }
    return { problems };
  } finally {
    for (const activation of [x, out]) pool.giveBack(activation);
    for (const { memory } of whole.chunks) context.recorder.freeLater(memory);
  }
}
