/** Options whose flags are not their names with hyphens. */
const otherwise: Readonly<Record<string, string>> = {
  calibration: "calib",
  keepZeros: "keep-mask",
  miniLlm: "minillm-option",
  windows: "calibration-windows",
};

/** Those that messages of the library name, in backticks, as programs give them. */
const named = new Set([
  ...Object.keys(otherwise),
  ...["adapter", "attention", "bos", "contextPruning", "distil", "distilLoss", "exits", "force", "inputDensity", "kv"],
  ...["layerGates", "match", "merge", "method", "methodOption", "multipleOf", "only", "pattern", "queue", "restart"],
  ...["root", "stream", "taskData", "teacher", "temperature", "texts", "threads", "window"],
]);

const flagOf = (option: string): string =>
  `--${otherwise[option] ?? option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** A message of the library, with the flags of the command line in the place of options. */
export const withFlags = (message: string): string =>
  message.replace(/`([a-z]\w*)`/g, (whole, option) => (named.has(option) ? flagOf(option) : whole));
