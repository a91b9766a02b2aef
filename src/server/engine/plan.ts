import type { TogetherTurn } from "../../runtime/index.js";
import type { Job } from "./job.js";

/** Jobs whose tokens run in one pass. */
export interface PlannedPass {
  readonly jobs: readonly Job[];
  readonly turns: readonly TogetherTurn[];
}

/** How passes are made of jobs. */
export interface PassLimits {
  /** Tokens of prompts in one pass. */
  readonly promptRows: number;
  /**
   * So many sparse sequences that generate run one by one: a pass over one token skips the inputs that its thresholds drop,
   * one over several tokens reads all weights, once.
   */
  readonly sparseAlone: number;
}

/**
 * The passes of one step: every job that generates gets one token; jobs in their prompt share the rows that are left, in the
 * order in which they came, so that a long prompt never holds up those that generate for more than one pass.
 */
export function planStep(jobs: readonly Job[], { promptRows, sparseAlone }: PassLimits): PlannedPass[] {
  const groups = new Map<unknown, { job: Job; turn: TogetherTurn }[]>();
  let rowsLeft = promptRows;
  for (const job of jobs) {
    if (job.inPrompt && rowsLeft === 0) continue;
    const turn = job.turn(rowsLeft);
    if (job.inPrompt) rowsLeft -= turn.tokens.length;
    const { thresholds } = turn.sequence.options;
    const group = groups.get(thresholds);
    if (group === undefined) groups.set(thresholds, [{ job, turn }]);
    else group.push({ job, turn });
  }
  const passes: PlannedPass[] = [];
  for (const group of groups.values()) {
    const [{ job, turn }] = group;
    const { model } = job.held!.sequence;
    const { thresholds = model.thresholds } = turn.sequence.options;
    const sparse = thresholds !== undefined && thresholds !== "dense";
    // Of an MLP in a file a pass over several tokens reads all, one over one token what it needs.
    const most =
      model.offload === undefined || model.offload.layout === "experts" ? (sparse ? sparseAlone : 0) : Infinity;
    const alone = group.length <= most && group.every((one) => one.turn.tokens.length === 1);
    const parts = alone ? group.map((one) => [one]) : [group];
    for (const part of parts) passes.push({ jobs: part.map((one) => one.job), turns: part.map((one) => one.turn) });
  }
  return passes;
}
