import { runExpertRank } from "./expertRank.js";
import type { RankTask } from "./expertRanks.js";
import { streamLink } from "./streamLink.js";

// What is printed by mistake must not get among the frames.
console.log = console.error;
const task = JSON.parse(process.argv[2]) as RankTask;
try {
  await runExpertRank(task, streamLink(process.stdin, process.stdout));
} catch {
  // Rank 0 was told why.
  process.exitCode = 1;
  process.stdin.destroy();
}
