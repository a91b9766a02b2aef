/** Figures as the page writes them, alike in tables and sentences. */

export const percent = (value: number | undefined, digits = 1): string =>
  value === undefined ? "" : `${(value * 100).toFixed(digits)} %`;

/** Of a rise, with its sign. */
export const change = (share: number): string =>
  `${share < 0 ? "−" : "+"}${percent(Math.abs(share), Math.abs(share) < 1 ? 1 : 0)}`;

/** Three digits, also where they are zeros: figures stand below each other. */
export const threeDigits = (value: number): string => (value >= 1000 ? value.toFixed(0) : value.toPrecision(3));

export const megabytes = (value: number | undefined): string => (value === undefined ? "" : threeDigits(value / 1e6));

export const times = (value: number | undefined, of: number | undefined): string =>
  value === undefined || of === undefined || of === 0 ? "" : `${(value / of).toFixed(2)} ×`;
