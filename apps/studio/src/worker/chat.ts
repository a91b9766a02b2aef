import type { Answer, ChatRequest, Picture } from "../protocol.js";
import type { CallContext } from "../rpc.js";
import type { Session } from "./session.js";
import type { Speaker } from "./speaker.js";

/**
 * All variants write, taking turns token by token, so that a machine that is busy with other things slows all alike. Stopped,
 * it gives what was written so far.
 */
export async function chat(
  { variants, maxTokens, sampling }: ChatRequest,
  sessionOf: (location: string) => Session,
  context: CallContext,
): Promise<Answer[]> {
  const { signal } = context;
  const speakers: Speaker[] = [];
  for (const [place, { location, skipping }] of variants.entries()) {
    speakers.push(await sessionOf(location).speaker(place, skipping, context));
  }
  let watchedToken = false;
  const onPicture = (picture: Picture) => {
    watchedToken = true;
    context.emit(picture, [picture.kept.buffer as ArrayBuffer]);
  };
  const shown = speakers.find(({ skipping }) => skipping !== "dense");
  for (const speaker of speakers) speaker.onPicture = speaker === shown ? onPicture : undefined;
  const writers = speakers.map((speaker, place) =>
    speaker.begin(place, variants[place].prompt, { ...sampling, maxTokens, signal }),
  );
  const turns = [...writers];
  try {
    while (turns.some(({ finish }) => finish === undefined)) {
      for (const writer of turns.filter(({ finish }) => finish === undefined)) {
        watchedToken = false;
        const token = await writer.next(() => watchedToken);
        if (token !== undefined) context.emit(token);
      }
      turns.reverse();
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    for (const writer of writers) await writer.end();
  }
  return writers.map((writer) => writer.result());
}
