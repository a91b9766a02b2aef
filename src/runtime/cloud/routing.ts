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
  /** Milliseconds that the first question took, for which the server runs the prompt; 0 where nothing was asked token by token. */
  openMs: number;
  /** Milliseconds of the model here, of other answers waited for, and of those the share on the way. */
  edgeMs: number;
  cloudMs: number;
  networkMs: number;
}

/** Before anything was asked. */
export const noRouting = ({ text, least }: { text: string; least: number }): Routing => ({
  ...{
    route: text,
    least,
    tokens: 0,
    routed: 0,
    asked: 0,
    caughtUp: 0,
    openMs: 0,
    edgeMs: 0,
    cloudMs: 0,
    networkMs: 0,
  },
});

/**
 * Milliseconds that a token is expected to take where a share of the tokens is asked of a server: the model here runs every token, and
 * the server once the prompt, t = t_edge + ρ · (RTT + t_server) + t_open / tokens.
 */
export const expectedTokenMs = ({
  edgeMs,
  askedShare,
  roundTripMs,
  serverMs,
  openShareMs = 0,
}: {
  edgeMs: number;
  askedShare: number;
  roundTripMs: number;
  serverMs: number;
  /** What the first question took, divided by the tokens of the text. */
  openShareMs?: number;
}): number => edgeMs + askedShare * (roundTripMs + serverMs) + openShareMs;
