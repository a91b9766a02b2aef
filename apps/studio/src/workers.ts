import type { ModelCalls, WorkshopCalls } from "./protocol.js";
import { type CallOptions, Client, Stopped } from "./rpc.js";

/** Keeps and runs models as long as the page is there. */
export const models = new Client<ModelCalls>(
  new Worker(new URL("./worker/models.ts", import.meta.url), { type: "module" }),
);

/** How long a job that was cancelled may take to its next step; then it is ended where it is. */
const patienceMs = 5000;

/** Runs one job in a worker of its own. Its code is loaded when it is wanted, and its memory given back with it. */
export async function inWorkshop<N extends keyof WorkshopCalls>(
  name: N,
  argument: WorkshopCalls[N][0],
  options: Required<CallOptions>,
): Promise<WorkshopCalls[N][1]> {
  const worker = new Worker(new URL("./worker/workshop.ts", import.meta.url), { type: "module" });
  const client = new Client<WorkshopCalls>(worker);
  let impatience: ReturnType<typeof setTimeout> | undefined;
  const lose = () => client.end(new Stopped("ended in the middle of a step"));
  options.signal.addEventListener("abort", () => (impatience = setTimeout(lose, patienceMs)), { once: true });
  try {
    return await client.call(name, argument, options);
  } finally {
    clearTimeout(impatience);
    client.end(new Stopped("its job is done"));
  }
}
