import type { ChooseStep } from "../../arch/index.js";
import type { Activation } from "../../kernels/index.js";
import { activate, linear } from "../operations.js";
import { bufferOf, type Operation, type Pass } from "../pass.js";
import type { LoadedSmall, SmallWeights } from "./loaded.js";

/**
 * Loads a controller that chooses one unit of every block (Jaszczur et al. 2021, arXiv 2111.12763). The host reads what it makes of
 * the rows and decides: of several rows what was not chosen is masked, of one row nothing else is made.
 */
export async function loadChoice(
  step: ChooseStep,
  { region, matrix, values, gathers }: SmallWeights,
): Promise<LoadedSmall> {
  const { down, up } = step.controller;
  const controller = { down: await matrix(down), up: await matrix(up) };
  const bias = up.bias && region.loadVector(await values(up.bias));
  const units = up.rows;

  /** What the controller makes of the rows: where it lies, and its numbers. */
  const scored = async (pass: Pass): Promise<{ scores: Activation; numbers: Float32Array }> => {
    const { backend } = pass;
    const from = bufferOf(pass, step.from);
    const low = pass.scratch(from.rows, down.rows, "controller rank");
    const scores = pass.scratch(from.rows, units, "controller");
    backend.linear(low, from, controller.down);
    backend.linear(scores, low, controller.up, { bias });
    return { scores, numbers: await backend.read(scores) };
  };

  const operation: Operation = async (pass) => {
    const { backend } = pass;
    const { scores, numbers } = await scored(pass);
    const chosen = largestOfBlocks(numbers, step.block);
    numbers.fill(0);
    for (const unit of chosen) numbers[unit] = 1;
    backend.write(scores, numbers);
    // Backends multiply by a ReLU, which leaves zeros and ones as they are.
    backend.gatedActivation(bufferOf(pass, step.into), scores, bufferOf(pass, step.of), "relu");
  };

  if (gathers === undefined) return { operation };
  const { rows, stack } = gathers;
  const [product, f] = [gathers.linear, gathers.activate];
  const { area, format, cols } = rows;
  const rowBytes = cols * (format === "f32" ? 4 : 2);
  const nothing = new Float32Array(units);
  const gathered: Operation = async (pass) => {
    const { backend, thresholds } = pass;
    const chosen = largestOfBlocks((await scored(pass)).numbers, step.block);
    const hidden = bufferOf(pass, step.into);
    backend.write(hidden, nothing);
    const threshold = pass.sparseFromRow <= 0 ? thresholds?.linear.get(product)?.[0] : undefined;
    const offsets = chosen.map((unit) => unit * rowBytes);
    area.linearRows(hidden, bufferOf(pass, product.of), { format, cols, offsets, outputs: chosen }, threshold ?? -1);
    backend.map(hidden, hidden, f.f);
  };
  const all = [linear(product, stack), activate(f), operation];
  const whole: Operation = (pass) => {
    // What is watched, chosen from or adapted must be made of all units.
    const wanted = pass.tap !== undefined || pass.thresholds?.inputs !== undefined || pass.adapted.length > 0;
    return pass.x.rows === 1 && !wanted ? gathered(pass) : inOrder(all, pass);
  };
  return { operation, whole };
}

async function inOrder(operations: readonly Operation[], pass: Pass): Promise<void> {
  for (const operation of operations) {
    const waiting = operation(pass);
    if (waiting !== undefined) await waiting;
  }
}

/** Of every `block` numbers the index of the largest, the first of equals. */
function largestOfBlocks(numbers: Float32Array, block: number): Uint32Array {
  return Uint32Array.from({ length: numbers.length / block }, (_, b) => {
    let best = b * block;
    for (let at = best + 1; at < (b + 1) * block; at++) if (numbers[at] > numbers[best]) best = at;
    return best;
  });
}
