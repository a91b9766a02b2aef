// Edge-cloud decoding in two processes: a server in one verifies what a draft in this one proposes, at several round-trip times
// (the answers of fetch are delayed). Measured tokens per second beside the formula
// (1 − α^(γ + 1)) / (1 − α) tokens in γ · t_draft + RTT + t_verify, with α from all rounds and times from the run of RTT 0.
//
// node scripts/check-edge-cloud.mjs TARGET DRAFT TEXT [--rtt 0,20,80] [--draft-tokens 4] [--tokens 128] [--texts 3]
//
// With --route entropy:threshold=3 the server is asked for some tokens only, and the formula is that of routing: t_edge + ρ · (RTT +
// t_server) + (t_prompt + RTT) / tokens a token, with ρ of each row and times of the run of RTT 0.
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { loadTokenizer, openModel, tokenizeText } from "rarefy";
import { resolveModel } from "rarefy/io/node";
import { collect, connectCloud, expectedTokenMs, generate, parseRoute } from "rarefy/runtime";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    rtt: { type: "string", default: "0,20,80" },
    "draft-tokens": { type: "string", default: "4" },
    tokens: { type: "string", default: "128" },
    texts: { type: "string", default: "3" },
    weights: { type: "string", default: "f32" },
    route: { type: "string" },
  },
});
const [targetName, draftName, textFile] = positionals;
const cli = new URL("../dist/cli/main.js", import.meta.url).pathname;
const how = ["--port", "0", "--threads", "1", "--weights", values.weights];
const server = spawn(process.execPath, [cli, "serve", `target=${targetName}`, ...how], {
  stdio: ["ignore", "pipe", "inherit"],
});
try {
  let said = "";
  for await (const piece of server.stdout) {
    said += piece;
    if (said.includes("/v1")) break;
  }
  const url = /http:\S+\/v1/.exec(said)[0];
  const files = await resolveModel(draftName);
  const tokenizer = await loadTokenizer(files);
  const { model } = await openModel(files, { weights: values.weights, threads: 1 });
  const { tokens } = await tokenizeText(tokenizer, await readFile(textFile, "utf8"));
  const draftTokens = Number(values["draft-tokens"]);
  const runs = [];
  // Texts outside, round-trip times inside: what disturbs a machine for a while disturbs all of them.
  for (let text = -1; text < Number(values.texts); text++) {
    for (const rttMs of values.rtt.split(",").map(Number)) {
      const delayed = async (address, init) => {
        await new Promise((resolve) => setTimeout(resolve, rttMs));
        return fetch(address, init);
      };
      const cloud = await connectCloud(url, { tokenizer, fetch: delayed });
      const at = (text + 1) * 500;
      const route = values.route === undefined ? undefined : parseRoute(values.route);
      const options = { cloud, route, draftTokens, maxTokens: Number(values.tokens), stopIds: [], temperature: 0 };
      const { speculation, routing, timings, tokenIds } = await collect(
        generate(model, tokens.slice(at, at + 64), options),
      );
      // The first text only warms up.
      if (text >= 0) runs.push({ rttMs, count: tokenIds.length - 1, ms: timings.decodeMs, ...speculation, ...routing });
    }
  }
  const sum = (list, of) => list.reduce((total, one) => total + of(one), 0);
  const base = runs.filter(({ rttMs }) => rttMs === Math.min(...runs.map((run) => run.rttMs)));
  if (values.route !== undefined) {
    const asked = sum(base, (run) => run.asked);
    const edgeMs = sum(base, (run) => run.edgeMs) / sum(base, (run) => run.count);
    const serverMs = sum(base, (run) => run.cloudMs) / asked - base[0].rttMs;
    const openMs = sum(base, (run) => run.openMs) / base.length - base[0].rttMs;
    console.log(
      `${values.route}: ${edgeMs.toFixed(2)} ms a token here, ${serverMs.toFixed(2)} ms there, ${openMs.toFixed(0)} ms for the prompt there`,
    );
    console.log("| RTT ms | asked | tokens run there at a time | tokens/s | formula | deviation |");
    for (const rttMs of new Set(runs.map((run) => run.rttMs))) {
      const mine = runs.filter((run) => run.rttMs === rttMs);
      const askedShare = sum(mine, (run) => run.asked) / sum(mine, (run) => run.count);
      const openShareMs = (mine.length * (openMs + rttMs)) / sum(mine, (run) => run.count);
      const measured = (1000 * sum(mine, (run) => run.count)) / sum(mine, (run) => run.ms);
      const formula = 1000 / expectedTokenMs({ edgeMs, askedShare, roundTripMs: rttMs, serverMs, openShareMs });
      const caughtUp = sum(mine, (run) => run.caughtUp) / sum(mine, (run) => run.asked);
      console.log(
        `| ${rttMs} | ${(100 * askedShare).toFixed(1)} % | ${caughtUp.toFixed(2)} | ${measured.toFixed(1)} | ${formula.toFixed(1)} | ` +
          `${(100 * (measured / formula - 1)).toFixed(1)} % |`,
      );
    }
    process.exitCode = 0;
    server.kill("SIGTERM");
    process.exit();
  }
  const looked = sum(runs, ({ acceptance, accepted, drafted }) => (drafted === 0 ? 0 : accepted / acceptance));
  const chance = sum(runs, ({ accepted }) => accepted) / looked;
  const draftMs = sum(base, (run) => run.draftMs) / sum(base, (run) => run.drafted);
  const verifyMs = sum(base, (run) => run.verifyMs) / sum(base, (run) => run.rounds) - base[0].rttMs;
  console.log(
    `acceptance ${chance.toFixed(3)}, ${draftMs.toFixed(2)} ms a proposal, ${verifyMs.toFixed(2)} ms a batch`,
  );
  console.log("| RTT ms | tokens/s | formula | deviation |");
  for (const rttMs of new Set(runs.map((run) => run.rttMs))) {
    const mine = runs.filter((run) => run.rttMs === rttMs);
    const measured = (1000 * sum(mine, (run) => run.count)) / sum(mine, (run) => run.ms);
    const perRound = (1 - chance ** (draftTokens + 1)) / (1 - chance);
    const formula = (1000 * perRound) / (draftTokens * draftMs + rttMs + verifyMs);
    const deviation = `${(100 * (measured / formula - 1)).toFixed(1)} %`;
    console.log(`| ${rttMs} | ${measured.toFixed(1)} | ${formula.toFixed(1)} | ${deviation} |`);
  }
} finally {
  server.kill("SIGTERM");
}
