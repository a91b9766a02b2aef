import type { EngineObserver } from "./engine/engine.js";
import type { ModelPool } from "./models/modelPool.js";

type Labels = Readonly<Record<string, string>>;

const escaped = (value: string) => value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");

const labelText = (labels: Labels) => {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
};

/** Counts by labels. */
class Counter {
  readonly #values = new Map<string, number>();
  constructor(
    readonly name: string,
    readonly help: string,
    readonly type: "counter" | "gauge" = "counter",
  ) {}

  add(labels: Labels, by = 1): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + by);
  }

  set(labels: Labels, value: number): void {
    this.#values.set(labelText(labels), value);
  }

  clear(): void {
    this.#values.clear();
  }

  *lines(): Generator<string> {
    yield `# HELP ${this.name} ${this.help}`;
    yield `# TYPE ${this.name} ${this.type}`;
    for (const [labels, value] of this.#values) yield `${this.name}${labels} ${value}`;
  }
}

/** How often values were at most each bound, and their sum. */
class Histogram {
  readonly #series = new Map<string, { labels: Labels; counts: number[]; sum: number; count: number }>();
  constructor(
    readonly name: string,
    readonly help: string,
    readonly bounds: readonly number[],
  ) {}

  observe(labels: Labels, value: number): void {
    const key = labelText(labels);
    let series = this.#series.get(key);
    if (series === undefined) {
      series = { labels, counts: this.bounds.map(() => 0), sum: 0, count: 0 };
      this.#series.set(key, series);
    }
    series.sum += value;
    series.count++;
    for (const [b, bound] of this.bounds.entries()) if (value <= bound) series.counts[b]++;
  }

  *lines(): Generator<string> {
    yield `# HELP ${this.name} ${this.help}`;
    yield `# TYPE ${this.name} histogram`;
    for (const [key, { labels, counts, sum, count }] of this.#series) {
      for (const [b, bound] of this.bounds.entries()) {
        yield `${this.name}_bucket${labelText({ ...labels, le: String(bound) })} ${counts[b]}`;
      }
      yield `${this.name}_bucket${labelText({ ...labels, le: "+Inf" })} ${count}`;
      yield `${this.name}_sum${key} ${sum}`;
      yield `${this.name}_count${key} ${count}`;
    }
  }
}

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** Speeds are means over so long. */
const speedWindowMs = 10_000;

/** What the server did and holds, as Prometheus reads it (text exposition format 0.0.4). */
export class Metrics {
  readonly #requests = new Counter("rarefy_requests_total", "Requests by path and status.");
  readonly #ended = new Counter("rarefy_generations_total", "Texts by how they ended.");
  readonly #promptTokens = new Counter("rarefy_prompt_tokens_total", "Tokens of prompts.");
  readonly #cachedTokens = new Counter("rarefy_prompt_tokens_cached_total", "Those that another text had run already.");
  readonly #generated = new Counter("rarefy_generated_tokens_total", "Tokens generated.");
  readonly #passes = new Counter("rarefy_passes_total", "Passes of a model.");
  readonly #weightBytes = new Counter("rarefy_weight_bytes_read_total", "Weight bytes that matrix products read.");
  readonly #kvReads = new Counter("rarefy_kv_bytes_read_total", "Bytes of keys and values that attention read.");
  readonly #inputs = new Counter(
    "rarefy_sparse_inputs_total",
    "Inputs of sparse matrix-vector products: of passes over one token, with thresholds.",
  );
  readonly #skipped = new Counter("rarefy_sparse_inputs_skipped_total", "Those of them that thresholds dropped.");
  readonly #batch = new Histogram("rarefy_batch_size", "Sequences of one pass.", [1, 2, 4, 8, 16, 32, 64, 128]);
  readonly #passSeconds = new Histogram("rarefy_pass_seconds", "Time of one pass.", seconds);
  readonly #queueSeconds = new Histogram("rarefy_queue_seconds", "Time in the queue.", seconds);
  readonly #first = new Histogram(
    "rarefy_time_to_first_token_seconds",
    "From the request to the first token.",
    seconds,
  );
  readonly #between = new Histogram(
    "rarefy_time_between_tokens_seconds",
    "From one token of a text to the next.",
    seconds,
  );
  readonly #waiting = new Counter("rarefy_queue_length", "Texts that wait.", "gauge");
  readonly #active = new Counter("rarefy_active_sequences", "Texts that are run.", "gauge");
  readonly #kvBytes = new Counter(
    "rarefy_kv_bytes",
    "Bytes of keys and values held, also those kept for later.",
    "gauge",
  );
  readonly #sharedKv = new Counter(
    "rarefy_kv_shared_bytes",
    "Bytes that keys and values would take beside those if texts with the same beginning did not share it.",
    "gauge",
  );
  readonly #memory = new Counter(
    "rarefy_model_bytes",
    "Bytes of a model: weights, working memory, keys and values.",
    "gauge",
  );
  readonly #speed = new Counter(
    "rarefy_tokens_per_second",
    "Tokens generated per second, over the last 10 s.",
    "gauge",
  );
  readonly #perToken = new Counter(
    "rarefy_weight_bytes_per_token",
    "Weight bytes read per token that was run, over the last 10 s.",
    "gauge",
  );
  readonly #recent = new Map<string, { atMs: number; generated: number; run: number; bytes: number }[]>();

  /** @param path of the table of routes, never what a client sent */
  request(path: string, status: number): void {
    this.#requests.add({ path, status: String(status) });
  }

  observerOf(model: string): EngineObserver {
    const labels = { model };
    const recent = (generated: number, run: number, bytes: number) => {
      const list = this.#recent.get(model) ?? [];
      const nowMs = performance.now();
      list.push({ atMs: nowMs, generated, run, bytes });
      while (list[0].atMs < nowMs - speedWindowMs) list.shift();
      this.#recent.set(model, list);
    };
    return {
      onPass: ({ tokens, sequences, elapsedMs }) => {
        this.#passes.add(labels);
        this.#batch.observe(labels, sequences);
        this.#passSeconds.observe(labels, elapsedMs / 1000);
        recent(0, tokens, 0);
      },
      onCounters: ({ weightBytesRead, kvBytesRead, inputs, inputsSkipped }) => {
        this.#weightBytes.add(labels, weightBytesRead);
        this.#kvReads.add(labels, kvBytesRead);
        this.#inputs.add(labels, inputs);
        this.#skipped.add(labels, inputsSkipped);
        recent(0, 0, weightBytesRead);
      },
      onQueued: (waitedMs) => this.#queueSeconds.observe(labels, waitedMs / 1000),
      onPrompt: (tokens, cached) => {
        this.#promptTokens.add(labels, tokens);
        this.#cachedTokens.add(labels, cached);
      },
      onToken: (sinceMs, first) => {
        (first ? this.#first : this.#between).observe(labels, sinceMs / 1000);
        this.#generated.add(labels);
        recent(1, 0, 0);
      },
      onEnd: (how) => this.#ended.add({ ...labels, how }),
    };
  }

  text(pool: ModelPool): string {
    const kv = [this.#kvBytes, this.#sharedKv];
    const gauges = [this.#waiting, this.#active, ...kv, this.#memory, this.#speed, this.#perToken];
    for (const gauge of gauges) gauge.clear();
    const sinceMs = performance.now() - speedWindowMs;
    for (const { id, engine, opened } of pool.loaded) {
      const labels = { model: id };
      this.#waiting.set(labels, engine?.waiting ?? 0);
      this.#active.set(labels, engine?.active ?? 0);
      this.#kvBytes.set(labels, engine?.memory.bytes ?? 0);
      this.#sharedKv.set(labels, engine?.memory.sharedBytes ?? 0);
      this.#memory.set(labels, opened.model.backend.memoryBytes());
      const recent = (this.#recent.get(id) ?? []).filter(({ atMs }) => atMs >= sinceMs);
      const sum = (of: "generated" | "run" | "bytes") => recent.reduce((total, one) => total + one[of], 0);
      this.#speed.set(labels, sum("generated") / (speedWindowMs / 1000));
      const run = sum("run");
      this.#perToken.set(labels, run === 0 ? 0 : sum("bytes") / run);
    }
    const counters = [
      this.#requests,
      this.#ended,
      this.#promptTokens,
      this.#cachedTokens,
      this.#generated,
      this.#passes,
    ];
    const reads = [this.#weightBytes, this.#kvReads, this.#inputs, this.#skipped];
    const histograms = [this.#batch, this.#passSeconds, this.#queueSeconds, this.#first, this.#between];
    const all = [...counters, ...reads, ...gauges, ...histograms];
    return `${all.flatMap((metric) => [...metric.lines()]).join("\n")}\n`;
  }
}
