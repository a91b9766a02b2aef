/** How a model that is larger than memory is held. */
export interface OffloadOptions {
  /**
   * Bytes of weights in memory at any time: what always stays (embeddings, attention, head), what is read as it is needed, and what
   * a prompt is run with, one step at a time. Default: everything.
   */
  residentBytes?: number;
  /** Tokens behind which a unit that was not used since is read again (LLM in a flash); default: as long as there is room. */
  window?: number;
  /** Whether reads go on while what has been read is multiplied; default true. */
  pipelined?: boolean;
  /** Units of a cluster, which is what is read while another is multiplied; default 256. */
  clusterUnits?: number;
  /**
   * Scores above which the predictors beside the model take a neuron for active: only those are read and multiplied, the others count
   * as idle. 0 is a chance of one half; a lower one misses less and reads more. Default: nothing is predicted, and results are exact.
   */
  predict?: number;
  /** Share of the room that is given to the units that a calibration text used most, which then stay; default 0.5 where it was counted. */
  pinned?: number;
}

/** What is held how, in bytes. */
export interface OffloadPlan {
  /** Weights that always stay, the room of a step of a prompt, and the room of units. */
  readonly fixedBytes: number;
  readonly promptBytes: number;
  readonly roomBytes: number;
  /** All units, in the file. */
  readonly offloadedBytes: number;
  readonly pinnedUnits: number;
}
