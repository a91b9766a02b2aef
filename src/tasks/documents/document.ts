/** One row of a data set: values as JSON has them, by column. */
export type Document = Readonly<Record<string, unknown>>;
