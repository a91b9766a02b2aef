import {
  calibrateActivationSparsity,
  evaluateQuality,
  generate,
  loadTokenizer,
  openModel,
  tokenizeText,
  toThresholds,
} from "rarefy";
import { urlFiles } from "rarefy/io";
import { shares } from "./shares.js";

/** Sampled, as greedy texts of a model this small go round in circles. */
const sampling = { maxTokens: 48, temperature: 0.7, seed: 7 };
/** Enough text for a demonstration; `rarefy calibrate` and `rarefy eval` take more. */
const window = 128;
const calibration = { window, calibrationWindows: 4, sparsities: shares };
const charactersRead = 6000;

/** What is open, and on which device. */
let session;

addEventListener("message", ({ data }) => {
  demonstrate(data).catch((error) => postMessage({ error: error.message }));
});

const tell = (status) => postMessage({ status });

/** Writes the same beginning with all inputs read and with a share of them skipped, then measures what skipping costs. */
async function demonstrate({ base, device, prompt, share }) {
  if (session?.device !== device) session = await open(base, device);
  const { model, tokenizer, records, text } = session;
  const thresholds = toThresholds(records[shares.indexOf(share)]);
  tell("Writing …");
  const ids = tokenizer.encode(prompt);
  const writers = [
    new Writer("dense", model, generate(model, ids, { ...sampling, tokenizer, ahead: false, thresholds: "dense" })),
    new Writer("sparse", model, generate(model, ids, { ...sampling, tokenizer, ahead: false, thresholds })),
  ];
  // In turn, token by token, so that a machine that is busy with other things slows both alike.
  while (writers.some(({ finished }) => !finished)) {
    for (const writer of writers) if (!writer.finished) postMessage({ written: await writer.next() });
    writers.reverse();
  }
  tell("Measuring what it costs …");
  const variants = [
    { name: "dense", model },
    { name: "sparse", model, thresholds },
  ];
  const [dense, sparse] = await evaluateQuality(variants, text, { window, maxWindows: 4 });
  postMessage({
    backend: model.backend.info.description,
    perplexity: { dense: dense.perplexity, sparse: sparse.perplexity },
    sameToken: sparse.divergence.top1Agreement,
  });
}

async function open(base, device) {
  session?.opened[Symbol.dispose]();
  session = undefined;
  tell("Loading 13 MB of weights …");
  const files = urlFiles(new URL("tiny-6m/", base).href);
  const tokenizer = await loadTokenizer(files);
  const read = async (name) => tokenizeText(tokenizer, await beginning(new URL(`text/${name}`, base)));
  const opened = await openModel(files, { device });
  tell("Finding out which inputs count, on 512 tokens …");
  const { records } = await calibrateActivationSparsity(opened.model, await read("calib.txt"), calibration);
  return { device, opened, model: opened.model, tokenizer, records, text: await read("books-eval.txt") };
}

/** The first characters of a text; servers that do no ranges send it whole. */
async function beginning(url) {
  const response = await fetch(url, { headers: { Range: `bytes=0-${2 * charactersRead}` } });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return (await response.text()).slice(0, charactersRead);
}

/** One side of the comparison: its text so far and what its tokens took. */
class Writer {
  finished = false;
  text = "";
  tokens = 0;
  elapsedMs = 0;
  bytes = 0;

  constructor(side, model, steps) {
    Object.assign(this, { side, model, steps });
  }

  async next() {
    const { backend } = this.model;
    backend.takeCounters();
    const beganMs = performance.now();
    const { value: step } = await this.steps.next();
    const tookMs = performance.now() - beganMs;
    this.finished = step === undefined || step.finish !== undefined;
    if (step !== undefined) {
      this.text += step.text;
      this.tokens++;
      // The first token is the prompt's; the second warms caches and compilers.
      if (this.tokens > 2) {
        this.elapsedMs += tookMs;
        this.bytes += backend.takeCounters().weightBytesRead;
      }
    }
    const { side, text, elapsedMs, bytes } = this;
    const timed = Math.max(this.tokens - 2, 1);
    return { side, text, tokensPerSecond: elapsedMs && (1000 * timed) / elapsedMs, bytesPerToken: bytes / timed };
  }
}
