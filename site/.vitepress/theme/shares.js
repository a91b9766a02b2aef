/** Shares of inputs to skip that the demo offers: thresholds of all are found in one pass over its text. */
export const shares = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
