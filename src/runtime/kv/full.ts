import { policy } from "./policy.js";

/** Everything is kept. */
export const full = policy({ summary: "everything is kept", parameters: {}, make: () => undefined });
