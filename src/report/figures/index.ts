/** The one kit of charts and pages: what reports and experiments draw with. No scripts, nothing fetched. */
export { fromBase64, toBase64 } from "./bytes.js";
export { document } from "./document.js";
export { type HeatmapOptions, heatmap } from "./heatmap.js";
export { activationHistogram } from "./histogram.js";
export { Html, html } from "./html.js";
export { type GreyMap, greyMap, levelPanels, type Panel } from "./levels.js";
export { type Line, type LineChartOptions, lineChart } from "./lineChart.js";
export { greyPngUrl } from "./png.js";
export { type Point, scatter } from "./scatter.js";
export { figure, type Picture, palette, svgFile, svgStyle } from "./svg.js";
