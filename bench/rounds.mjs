// Takes turns between contestants and compares what came out.

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** What every engine runs after it was opened and before it counts. */
const warmUp = { prompt: 16, tokens: 2 };

/**
 * Every round opens every engine once, every other round in reverse, so that whatever else the machine does harms all alike.
 * One engine is open at a time: the idle threads of some wait by polling, and would share the cores with the one measured.
 * @param engines [{ open() → { contestants: [{ id, measure({ prompt, tokens }) }], dispose() } }]
 * @returns results by id, one per round
 */
export async function alternate(engines, { rounds, prompt, tokens }) {
  const results = {};
  for (let round = 1; round <= rounds; round++) {
    const inOrder = (list) => (round % 2 ? list : list.toReversed());
    for (const { open } of inOrder(engines)) {
      const { contestants, dispose } = await open();
      for (const { id, measure } of inOrder(contestants)) {
        await measure(warmUp);
        const result = await measure({ prompt, tokens });
        results[id] = [...(results[id] ?? []), result];
        process.stderr.write(
          `round ${round} of ${rounds}: ${id}, prefill ${show(result.prefillTokensPerSecond)}, decode ${show(result.decodeTokensPerSecond)} tokens/s\n`,
        );
      }
      await dispose();
    }
  }
  return results;
}

const speeds = [
  "prefillTokensPerSecond",
  "decodeTokensPerSecond",
  "prefillTokensPerCpuSecond",
  "decodeTokensPerCpuSecond",
];
const figures = [...speeds, "bytesPerToken", "inputsSkipped"];
/** For people. */
const nameOf = (speed) => speed.replace("TokensPerSecond", "").replace("TokensPerCpuSecond", " by CPU time");

/** Medians over the rounds, of speeds also the lowest and highest, and what others disturbed. */
export const summarise = (results) =>
  Object.entries(results).map(([id, rounds]) => {
    const of = (name) => rounds.map((round) => round[name]);
    const sum = (name) => of(name).reduce((a, b) => a + Number(b ?? 0), 0);
    const known = (name) => rounds[0][name] !== undefined;
    return {
      id,
      ...Object.fromEntries(figures.filter(known).map((name) => [name, median(of(name))])),
      spread: Object.fromEntries(
        speeds.filter(known).map((name) => [name, [Math.min(...of(name)), Math.max(...of(name))]]),
      ),
      tokens: sum("tokens"),
      disturbedTokens: sum("disturbedTokens"),
      disturbedPrefills: sum("prefillDisturbed"),
      repeated: sum("runs") - rounds.length,
    };
  });

/**
 * Ratios round by round, then their median: both sides of a ratio ran within the same minute.
 * @param comparisons [[id, other id, figure]]
 */
export const compare = (results, comparisons) =>
  comparisons.flatMap(([id, against, figure]) => {
    if (results[id][0][figure] === undefined) return [];
    const ratios = results[id].map((result, round) => result[figure] / results[against][round][figure]);
    return { id, against, figure, ratio: median(ratios), low: Math.min(...ratios), high: Math.max(...ratios) };
  });

const spread = ({ spread, ...row }, name) => `${show(row[name])} (${spread[name].map(show).join(" – ")})`;

const show = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

export function printReport({ machine, settings, readBytesPerSecond: bandwidth, summary, ratios }) {
  const rows = summary.map((row) => [
    row.id,
    spread(row, "prefillTokensPerSecond"),
    spread(row, "decodeTokensPerSecond"),
    row.decodeTokensPerCpuSecond ? show(1000 / row.decodeTokensPerCpuSecond) : "",
    row.bytesPerToken ? (row.bytesPerToken / 1e6).toFixed(0) : "",
    row.bytesPerToken ? `${((100 * row.bytesPerToken * row.decodeTokensPerSecond) / bandwidth).toFixed(0)} %` : "",
    row.inputsSkipped === undefined ? "" : `${(100 * row.inputsSkipped).toFixed(1)} %`,
    `${row.disturbedTokens} of ${row.tokens} tokens, ${row.disturbedPrefills} prefills; ${row.repeated} repeated`,
  ]);
  const { cpu, cores, vectorFlags, memoryGiB, node, loadAverage } = machine;
  const { model, threads, rounds, prompt, tokens } = settings;
  console.log(`${cpu}, ${cores} cores (${vectorFlags.join(" ")}), ${memoryGiB} GiB, Node ${node}`);
  console.log(
    `reads ${(bandwidth / 1e9).toFixed(1)} GB/s on ${threads} threads; load average before the run ${loadAverage.toFixed(1)}`,
  );
  console.log(`${model}, ${threads} threads, ${rounds} rounds, prefill ${prompt}, decode ${tokens} tokens\n`);
  table(
    ["", "prefill tok/s", "decode tok/s", "CPU ms/token", "MB/token", "of bandwidth", "inputs skipped", "disturbed"],
    rows,
  );
  console.log("");
  table(
    ["", "against", "", "ratio", "lowest", "highest"],
    ratios.map((r) => [r.id, r.against, nameOf(r.figure), ...[r.ratio, r.low, r.high].map((x) => `${x.toFixed(2)} ×`)]),
  );
}

function table(header, rows) {
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i].length)));
  for (const row of [header, ...rows])
    console.log(
      row
        .map((cell, i) => (/^[\d.]/.test(cell) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join("  ")
        .trimEnd(),
    );
}
