import { stat } from "node:fs/promises";
import { FormatError, type JobOptions } from "../core/index.js";
import {
  type Fingerprint,
  fingerprint,
  type LocalModelFiles,
  openCheckpoint,
  readJsonFile,
  sha256Hex,
} from "../io/index.js";
import { isWeightFile, takeStorage } from "../io/internal.js";

/**
 * Notes what the files of a model are, as the system tells them apart, for a job that reads them more than once.
 * @returns throws FormatError when one of them has changed since
 */
export async function watchSource(files: LocalModelFiles): Promise<() => Promise<void>> {
  const names = (await files.names()).filter((name) => isWeightFile(name) || name === "config.json").sort();
  const before = await Promise.all(names.map((name) => stateOf(files, name)));
  return async () => {
    for (const [i, name] of names.entries()) {
      if ((await stateOf(files, name)) === before[i]) continue;
      throw new FormatError({
        file: `${files.location}/${name}`,
        problem: "it was changed while it was read",
        hint: "Begin again; what was made of the other weights is refused then (`restart`)",
      });
    }
  };
}

async function stateOf(files: LocalModelFiles, name: string): Promise<string> {
  const path = files.pathOf(name);
  if (path === undefined) return "";
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? "gone" : [found.dev, found.ino, found.size, found.mtimeNs].join();
}

/** What tells a model from others; every weight is read once. */
export async function fingerprintOf(files: LocalModelFiles, job: JobOptions): Promise<Fingerprint> {
  const checkpoint = await openCheckpoint(files);
  try {
    return await fingerprint(checkpoint, job);
  } finally {
    await checkpoint.close();
  }
}

/** SHA-256 of config.json. */
export async function configHash(files: LocalModelFiles): Promise<string> {
  const config = (await files.open("config.json"))!;
  try {
    return await sha256Hex(await config.read(0, config.byteLength));
  } finally {
    await config.close();
  }
}

/** config.json as it is stored, and without what it says of how the weights are stored, for a result that stores them plainly. */
export async function plainConfig(
  files: LocalModelFiles,
): Promise<Record<"raw" | "plain", Readonly<Record<string, unknown>>>> {
  const raw = (await readJsonFile(files, "config.json")) as Record<string, unknown>;
  const { config } = takeStorage(raw, `${files.location}/config.json`);
  return { raw, plain: config as Record<string, unknown> };
}
