const integerSpacing = 1.5 * 2 ** 52;

/** Ties to even, as NumPy and PyTorch round; |x| < 2⁵¹. */
export const roundHalfEven = (x: number): number => x + integerSpacing - integerSpacing;

/** Ties away from zero, as C's `roundf`. */
export const roundHalfAway = (x: number): number => Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
