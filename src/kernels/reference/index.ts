import type { Backend } from "../backend.js";
import { ReferenceBackend } from "./backend.js";

export async function createBackend(): Promise<Backend> {
  return new ReferenceBackend();
}
