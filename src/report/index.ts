export { readTrainingLog, type TrainingRecord } from "./curves.js";
export { type Candidate, type ReportData, type Run, runOfArtifact, runOfSweep } from "./data.js";
export { figure, type HeatmapOptions, heatmap, type Picture, svgStyle } from "./figures/index.js";
export { joinRuns, reportJson } from "./join.js";
export { drawMask, type MaskPicture, masksToDraw } from "./masks.js";
export { reportPage } from "./page.js";
