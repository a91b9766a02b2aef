import { generateText, loadTokenizer, openModel } from "rarefy";
import { urlFiles } from "rarefy/io";

/** What an application does: opens the model that lies beside the page, and writes. */
export async function generate() {
  const files = urlFiles(new URL("/models/tiny-6m/", location.href).href);
  const tokenizer = await loadTokenizer(files);
  const opened = await openModel(files, { weights: "f32" });
  let text = "";
  for await (const step of generateText(opened.model, tokenizer, "It was a dark night", { maxTokens: 12 })) {
    text += step.text;
  }
  const { threads } = opened.model.backend.info;
  opened[Symbol.dispose]();
  return { text, threads };
}
