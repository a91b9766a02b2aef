// What a mixture whose experts are read as they are needed reads for a decoded token, by the room that experts have (docs/offload.md):
//   npm run build && node bench/offload-experts.mjs MIXTURE [--shares 1,0.75,0.5,0.25] [--tokens 128] [--weights bf16] [--cold]
// Bytes and hits are counted and the same everywhere; times are of this machine. --cold drops the file from the page cache before each
// row (Linux, GNU dd).
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directoryFiles } from "../dist/io/index.node.js";
import { offloadToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    shares: { type: "string", default: "1,0.75,0.5,0.25" },
    tokens: { type: "string", default: "128" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    weights: { type: "string", default: "bf16" },
    threads: { type: "string", default: "1" },
    repeats: { type: "string", default: "3" },
    cold: { type: "boolean", default: false },
  },
});
const { weights } = values;
const source = directoryFiles(positionals[0]);
const count = Number(values.tokens);
const tokenizer = await loadTokenizer(source);
const { tokens } = await tokenizeText(tokenizer, readFileSync(values.text, "utf8"), { maxTokens: count });
const scratch = mkdtempSync(join(tmpdir(), "rarefy-experts-"));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

/** Decodes the text token by token. @returns ms of a token */
async function decode(model) {
  const cache = model.createCache(count);
  const sinceMs = performance.now();
  for (let t = 0; t < count; t++) {
    const logits = await model.forward(tokens.subarray(t, t + 1), cache, t);
    await model.backend.topK(logits, 1);
    model.backend.release(logits);
  }
  const ms = (performance.now() - sinceMs) / count;
  cache[Symbol.dispose]();
  return ms;
}

try {
  const directory = join(scratch, "experts");
  await offloadToDirectory(source, directory, { weights });
  const how = { threads: Number(values.threads), weights };
  let [fixed, all] = [0, 0];
  {
    const opened = await openModel(directoryFiles(directory), { ...how, offload: {} });
    ({ fixedBytes: fixed, offloadedBytes: all } = opened.model.offload.plan);
    opened[Symbol.dispose]();
  }
  const rows = [
    ["in memory", undefined],
    ...values.shares
      .split(",")
      .map((share) => [`room for ${share} of all experts`, Math.ceil(fixed + Number(share) * all)]),
  ].map(([name, residentBytes]) => ({ name, residentBytes, ms: [], counted: undefined }));
  for (let round = 0; round < Number(values.repeats); round++) {
    for (const row of rows) {
      const offload = row.residentBytes && { residentBytes: row.residentBytes };
      if (values.cold)
        execFileSync("dd", [`if=${join(directory, "offload.bin")}`, "iflag=nocache", "count=0", "status=none"]);
      const opened = await openModel(directoryFiles(directory), { ...how, ...(offload && { offload }) });
      row.ms.push(await decode(opened.model));
      row.counted = opened.model.offload?.takeCounters();
      opened[Symbol.dispose]();
    }
  }
  console.log(JSON.stringify({ fixed, experts: all, tokens: count, weights }));
  console.log("experts | resident MB | hits | kB/token | reads/token | tokens/s (lowest - highest)");
  for (const { name, residentBytes, ms, counted } of rows) {
    const perSecond = ms.map((of) => 1000 / of).sort((a, b) => a - b);
    const speed = `${median(perSecond).toFixed(1)} (${perSecond[0].toFixed(1)} - ${perSecond.at(-1).toFixed(1)})`;
    const resident = ((residentBytes ?? fixed + all) / 1e6).toFixed(1);
    const { hits = 0, units = 1, bytesRead = 0, reads = 0 } = counted ?? {};
    const share = counted === undefined ? "" : `${((100 * hits) / units).toFixed(1)} %`;
    console.log(
      `${name} | ${resident} | ${share} | ${(bytesRead / count / 1000).toFixed(1)} | ${(reads / count).toFixed(2)} | ${speed}`,
    );
  }
} finally {
  rmSync(scratch, { recursive: true });
}
