export { portLink, type RankLink, type RankPort } from "./link.js";
export type { RankModel } from "./messages.js";
export { ExpertRanks, type RankTraffic } from "./ranks.js";
export { reportFailure, type ServeExpertsOptions, serveExperts } from "./serve.js";
