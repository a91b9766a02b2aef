/** Factors are small, and what one of them is off by all entries are off by. */
export const chainFormat = "f32";
