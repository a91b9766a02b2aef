import type { Backend, LinearOptions } from "../../src/kernels/index.js";

/** What a backend is asked for, in words, one line an operation. */
export interface Recording {
  backend: Backend;
  /** The lines since the last call. */
  take(): string[];
}

/** Operations that a model enqueues; storage and reads are not among them. */
const operations = new Set([
  ...["embed", "rmsNorm", "linear", "rope", "appendKv", "attention", "rotatedAttention", "gatedActivation", "add"],
  ...["route", "expertLinear", "addExperts"],
]);

/** A handle or an option in words: `[3, 64]` of an activation, `q_proj+k_proj [96, 64] f32` of a matrix. */
function describe(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  if (ArrayBuffer.isView(value) || Array.isArray(value))
    return `(${Array.from(value as ArrayLike<unknown>).join(" ")})`;
  const handle = value as Record<string, unknown>;
  if ("parts" in handle) {
    const parts = (handle.parts as { name: string }[]).map(({ name }) => name.replace(/^model\.layers\./, ""));
    return `${parts.join("+")} [${handle.rows}, ${handle.cols}] ${handle.format}`;
  }
  if ("rowRange" in handle) return `[${handle.rows}, ${handle.cols}]`;
  if ("perRow" in handle && "rows" in handle) return `routing of ${handle.rows}`;
  if ("spec" in handle) return "kind" in (handle.spec as object) ? describe(handle.spec) : "cache";
  if ("headDim" in handle) return "turns";
  if ("length" in handle) return `<${handle.length}>`;
  if ("q" in handle) return `{q: ${describe(handle.q)}, k: ${describe(handle.k)}, v: ${describe(handle.v)}}`;
  const given = Object.entries(handle).filter(([, option]) => option !== undefined);
  return `{${given.map(([name, option]) => `${name}: ${describe(option)}`).join(", ")}}`;
}

/**
 * A backend whose operations are written down before they run.
 * @param fused whether it claims fused operations, which it runs one by one
 */
export function recording(inner: Backend, fused: boolean): Recording {
  let lines: string[] = [];
  const extras: Partial<Backend> = fused
    ? {
        fusesGates: true,
        rotatedAttention(out, { q, k, v }, table, cache, layer, options) {
          inner.rope(q, table, options.position);
          inner.rope(k, table, options.position);
          inner.appendKv(cache, layer, k, v, options.start);
          inner.attention(out, q, cache, layer, options);
        },
        linear(out, x, w, { gate, ...options }: LinearOptions = {}) {
          if (gate !== undefined) inner.gatedActivation(x, x, gate.up, gate.f, { gateThreshold: gate.gateThreshold });
          inner.linear(out, x, w, options);
        },
      }
    : {};
  const backend = new Proxy({} as Backend, {
    get(_, name) {
      const found = (extras as Record<PropertyKey, unknown>)[name] ?? Reflect.get(inner, name, inner);
      if (typeof found !== "function") return found;
      const method = found as (...args: unknown[]) => unknown;
      return (...args: unknown[]) => {
        if (operations.has(String(name))) lines.push(`${String(name)} ${args.map(describe).join(" ")}`);
        return method.apply(inner, args);
      };
    },
  });
  return {
    backend,
    take() {
      const taken = lines;
      lines = [];
      return taken;
    },
  };
}
