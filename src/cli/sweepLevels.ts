import { InvalidArgumentError } from "commander";
import type { SweepLevel } from "../jobs/index.js";

const maxLevels = 100;

/** "0.3..0.8" in steps of 0.1, "0.3..0.8/0.05" in steps of 0.05, "0.5,0.7,2:4". @throws InvalidArgumentError */
export function parseLevels(text: string): SweepLevel[] {
  const range = /^(0?\.\d+|0)\.\.(0?\.\d+)(?:\/(0?\.\d+))?$/.exec(text);
  const levels = range === null ? text.split(",").map(parseLevel) : spread(range.slice(1, 4).map(Number));
  if (levels.length === 0 || levels.length > maxLevels)
    throw new InvalidArgumentError(`Give 1 to ${maxLevels} values.`);
  return levels;
}

function spread([from, to, given]: readonly number[]): number[] {
  const step = Number.isNaN(given) ? 0.1 : given;
  const count = Math.floor((to - from) / step + 1e-9) + 1;
  // Sums of decimal steps in binary are not what was meant.
  return Array.from({ length: Math.max(0, Math.min(count, maxLevels + 1)) }, (_, i) =>
    Number((from + i * step).toFixed(6)),
  );
}

function parseLevel(text: string): SweepLevel {
  const group = /^(\d{1,2}):(\d{1,2})$/.exec(text.trim());
  if (group !== null) return { keep: Number(group[1]), group: Number(group[2]) };
  const share = text.trim() === "" ? Number.NaN : Number(text);
  if (share >= 0 && share < 1) return share;
  throw new InvalidArgumentError("Give shares like 0.5 or 2:4 with commas between, or a range like 0.3..0.8.");
}
