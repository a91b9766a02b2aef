/** What was asked of a server, and what that took. */
export interface Routing {
  /** The rule, as it was written. */
  readonly route: string;
  /** The certainty below which was asked. */
  readonly least: number;
  /** Tokens of the text, and those that came from the server. */
  tokens: number;
  routed: number;
  /** Times that the server was asked, and tokens that it had to run to know what had come before. */
  asked: number;
  caughtUp: number;
  /** Milliseconds of the model here, of answers waited for, and of those the share on the way. */
  edgeMs: number;
  cloudMs: number;
  networkMs: number;
}

/** Before anything was asked. */
export const noRouting = ({ text, least }: { text: string; least: number }): Routing => ({
  ...{ route: text, least, tokens: 0, routed: 0, asked: 0, caughtUp: 0, edgeMs: 0, cloudMs: 0, networkMs: 0 },
});

/**
 * Milliseconds that a token is expected to take where a share of the tokens is asked of a server: the model here runs every token,
 * t = t_edge + ρ · (RTT + t_server).
 */
export const expectedTokenMs = ({
  edgeMs,
  askedShare,
  roundTripMs,
  serverMs,
}: {
  edgeMs: number;
  askedShare: number;
  roundTripMs: number;
  serverMs: number;
}): number => edgeMs + askedShare * (roundTripMs + serverMs);
