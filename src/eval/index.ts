/// <reference lib="esnext.disposable" preserve="true" />
export { type AllocationComparison, calibrateBetterAllocation } from "./betterAllocation.js";
export { densityStored } from "./densityStored.js";
export type { Divergence } from "./divergence.js";
export type { MeasuredSpeed } from "./measuredSpeed.js";
export { evaluateQuality, type Quality, type QualityOptions } from "./quality.js";
export { type Measured, type ResultRow, resultRow } from "./resultRow.js";
export { formatResultRows } from "./resultTable.js";
export { type ClosedVariant, measureSpeed, measureSpeedInTurn, type Speed, type SpeedOptions } from "./speed.js";
export { measureSplit, type SplitOptions, type SplitTimes, type TimeSplit } from "./split.js";
export { type TaskDifference, type TaskRow, taskDifference } from "./taskRow.js";
export type { Variant } from "./variant.js";
export { type Convention, conventions } from "./windows.js";
