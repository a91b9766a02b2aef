import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the Hub is and where its files are kept, from the environment variables that all Hugging Face tools share. */
export interface HubSettings {
  /** HF_ENDPOINT, without a slash at the end. */
  endpoint: string;
  /** HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub. */
  cache: string;
  /** HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the file HF_TOKEN_PATH or $HF_HOME/token. */
  token?: string;
  /** HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE. */
  offline: boolean;
}

export async function readHubSettings(env: Environment): Promise<HubSettings> {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  return {
    endpoint: (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, ""),
    cache: env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"),
    token: env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || (await readToken(env.HF_TOKEN_PATH || join(home, "token"))),
    offline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
  };
}

const isTrue = (value: string | undefined) => /^(1|on|yes|true)$/i.test(value ?? "");

async function readToken(path: string): Promise<string | undefined> {
  // Without a readable token file the Hub is asked without a token.
  const text = await readFile(path, "utf8").catch(() => "");
  return text.trim() || undefined;
}
