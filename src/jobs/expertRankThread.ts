import { type MessagePort, workerData } from "node:worker_threads";
import { portLink, type RankPort } from "../model/index.js";
import { runExpertRank } from "./expertRank.js";
import type { RankTask } from "./expertRanks.js";

const { task, port } = workerData as { task: RankTask; port: MessagePort };
await runExpertRank(task, portLink(port as unknown as RankPort));
