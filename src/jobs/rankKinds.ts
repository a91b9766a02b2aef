/** What ranks may be on one machine: worker threads, or processes of their own. */
export const rankKinds = ["threads", "processes"] as const;

/** One of `rankKinds`. */
export type RankKind = (typeof rankKinds)[number];
