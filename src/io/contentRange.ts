/** `Content-Range: bytes first-last/total`; for an empty answer (416) first and last are undefined. */
export interface ContentRange {
  first?: number;
  last?: number;
  total: number;
}

/** @returns undefined when the header is missing, hidden by CORS, or of another form (an unknown total included) */
export function parseContentRange(header: string | null): ContentRange | undefined {
  const match = /^bytes (?:(\d{1,16})-(\d{1,16})|\*)\/(\d{1,16})$/.exec(header?.trim() ?? "");
  if (match === null) return undefined;
  const [first, last, total] = match.slice(1).map((digits) => (digits === undefined ? undefined : Number(digits)));
  return { first, last, total: total! };
}
