import type { Scorer } from "../../src/tasks/index.js";

export function fakeScorer(): Scorer & { asked: unknown[][] };
export const fakeChatTemplate: {
  render(messages: readonly { role: string; content: string }[], options?: { addGenerationPrompt?: boolean }): string;
};
