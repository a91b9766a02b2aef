import type { ActivationFunction, GateFunction } from "../core/index.js";
import type { RopeSpec } from "./ropes/index.js";
import type {
  ActivateStep,
  BlockSpec,
  Buffer,
  LinearSpec,
  NormSpec,
  RouterSpec,
  RowPick,
  SightSpec,
  Site,
  Step,
  TensorRef,
  Units,
} from "./spec.js";

/**
 * The parts that blocks are put together from, each named for what the literature calls it. A family says how its blocks
 * are wired (`preNorm` …), what attends (`grouped` …), what follows (`gated` …) and where the tensors lie (`stored` …).
 */

/** Where a linear map of this size lies in the checkpoint. */
export type Stored = (rows: number, cols: number) => { weight: TensorRef; bias?: TensorRef };

/** A module of its own: `name.weight` [rows, cols] and perhaps `name.bias` [rows]. */
export const stored =
  (name: string, bias = false): Stored =>
  (rows, cols) => ({
    weight: { tensor: `${name}.weight`, shape: [rows, cols] },
    ...(bias && { bias: { tensor: `${name}.bias`, shape: [rows] } }),
  });

/** As `stored`, but [cols, rows] (the Conv1D modules of GPT-2). */
export const transposed =
  (name: string): Stored =>
  (rows, cols) => ({
    weight: { tensor: `${name}.weight`, shape: [cols, rows], transposed: true },
    bias: { tensor: `${name}.bias`, shape: [rows] },
  });

/** One of a stack of `count` maps, `name` [count, cols, rows], with the biases `name_bias` [count, rows]. */
export const oneOf =
  (name: string, count: number, index: number): Stored =>
  (rows, cols) => ({
    weight: { tensor: name, shape: [count, cols, rows], transposed: true, stacked: index },
    bias: { tensor: `${name}_bias`, shape: [count, rows], stacked: index },
  });

/** Some rows of a module of `total` rows that several maps share. */
export const rowsOf =
  (whole: Stored, total: number, pick: RowPick): Stored =>
  (_rows, cols) => {
    const { weight, bias } = whole(total, cols);
    return { weight: { ...weight, rows: pick }, ...(bias && { bias: { ...bias, rows: pick } }) };
  };

/** Maps one behind the other in one module, by their numbers of rows. */
export function stacked(whole: Stored, rows: readonly number[]): Stored[] {
  const total = rows.reduce((sum, count) => sum + count, 0);
  let first = 0;
  return rows.map((run) => {
    const pick = { first, run, stride: run, runs: 1 };
    first += run;
    return rowsOf(whole, total, pick);
  });
}

/** Maps of one width whose runs of `run` rows take turns in one module, `runs` times. */
export const interleaved = (whole: Stored, maps: number, run: number, runs: number): Stored[] =>
  Array.from({ length: maps }, (_, m) =>
    rowsOf(whole, maps * run * runs, { first: m * run, run, stride: maps * run, runs }),
  );

export interface MapOptions {
  /** Number of the expert that it belongs to. */
  expert?: number;
  units?: readonly Units[];
}

export function linearMap(
  role: string,
  rows: number,
  cols: number,
  where: Stored,
  { expert, units }: MapOptions = {},
): LinearSpec {
  const id = expert === undefined ? role : `experts.${expert}.${role}`;
  return { id, role, rows, cols, ...where(rows, cols), ...(units && { units }) };
}

/** Steps that read `from` and leave what they give in `to.into`. */
export type Part = (from: Buffer, to: { into: Buffer; add?: true }) => readonly Step[];

const norm = (norm: NormSpec, of: Buffer, into: Buffer): Step => ({ do: "norm", norm, of, into });

/** A layer norm with a bias, over rows of `length`. */
export const layerNorm = (name: string, length: number, epsilon: number): NormSpec => ({
  kind: "layer",
  weight: { tensor: `${name}.weight`, shape: [length] },
  bias: { tensor: `${name}.bias`, shape: [length] },
  epsilon,
});

/** x += attention(norm(x)); x += mlp(norm(x)) */
export const preNorm = (norms: readonly [NormSpec, NormSpec], attention: Part, mlp: Part): BlockSpec => ({
  steps: [
    norm(norms[0], "x", "normed"),
    ...attention("normed", { into: "x", add: true }),
    norm(norms[1], "x", "normed"),
    ...mlp("normed", { into: "x", add: true }),
  ],
});

/** x += attention(norm(x)) + mlp(norm(x)), both norms of one x (GPT-J). */
export const parallel = (norms: readonly [NormSpec, NormSpec], attention: Part, mlp: Part): BlockSpec => ({
  steps: [
    norm(norms[0], "x", "normed"),
    norm(norms[1], "x", "mlpNormed"),
    ...attention("normed", { into: "x", add: true }),
    ...mlp("mlpNormed", { into: "x", add: true }),
  ],
});

/** x = norm(x + attention(x)); x = norm(x + mlp(x)) */
export const postNorm = (norms: readonly [NormSpec, NormSpec], attention: Part, mlp: Part): BlockSpec => ({
  steps: [
    ...attention("x", { into: "x", add: true }),
    norm(norms[0], "x", "x"),
    ...mlp("x", { into: "x", add: true }),
    norm(norms[1], "x", "x"),
  ],
});

/** x += norm(attention(norm(x))); x += norm(mlp(norm(x))) */
export const sandwich = (
  norms: readonly [NormSpec, NormSpec, NormSpec, NormSpec],
  attention: Part,
  mlp: Part,
): BlockSpec => ({
  steps: [
    norm(norms[0], "x", "normed"),
    ...attention("normed", { into: "out" }),
    norm(norms[1], "out", "out"),
    { do: "add", of: "out", into: "x" },
    norm(norms[2], "x", "normed"),
    ...mlp("normed", { into: "out" }),
    norm(norms[3], "out", "out"),
    { do: "add", of: "out", into: "x" },
  ],
});

export interface AttentionSizes {
  hiddenSize: number;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
}

export interface Rotation {
  rope: RopeSpec;
  /** Columns of a head that are rotated, from the first on. Default all. */
  width?: number;
}

export interface AttentionOptions {
  sight: SightSpec;
  /** Left out, positions are not rotated. */
  rotation?: Rotation;
  /** Default 1 / √headDim. */
  scale?: number;
  softcap?: number;
  sinks?: TensorRef;
  /** Before the rotation: of every head by itself, or of all together, as long as the weights are. */
  headNorms?: { q: NormSpec; k: NormSpec };
  /** q, k and v are clamped to ±this. */
  clip?: number;
}

/** Grouped-query attention (arXiv 2305.13245); with as many key heads as query heads, multi-head attention. */
export function grouped(
  { hiddenSize, queryHeads, kvHeads, headDim }: AttentionSizes,
  where: { q: Stored; k: Stored; v: Stored; o: Stored },
  options: AttentionOptions,
): Part {
  const queryWidth = queryHeads * headDim;
  const kvWidth = kvHeads * headDim;
  // A key and value head goes with all the query heads that read it.
  const units = (axis: Units["axis"]): MapOptions => ({
    units: [{ kind: "heads", group: "attention", axis, count: kvHeads }],
  });
  const { rotation, headNorms, clip, sight, scale = 1 / Math.sqrt(headDim), softcap, sinks } = options;
  return (from, to) => [
    {
      do: "linear",
      of: from,
      site: { id: "attentionInput", width: hiddenSize },
      maps: [
        { map: linearMap("q_proj", queryWidth, hiddenSize, where.q, units("rows")), into: "q" },
        { map: linearMap("k_proj", kvWidth, hiddenSize, where.k, units("rows")), into: "k" },
        { map: linearMap("v_proj", kvWidth, hiddenSize, where.v, units("rows")), into: "v" },
      ],
    },
    ...(headNorms === undefined ? [] : [norm(headNorms.q, "q", "q"), norm(headNorms.k, "k", "k")]),
    ...(clip === undefined ? [] : ["q", "k", "v"].map((of): Step => ({ do: "cap", of, kind: "hard", cap: clip }))),
    ...(rotation === undefined ? [] : [rotate(["q", "k"], rotation, headDim)]),
    {
      do: "attend",
      q: "q",
      k: "k",
      v: "v",
      into: "attended",
      heads: queryHeads,
      kv: { heads: kvHeads, k: headDim, v: headDim },
      scale,
      sight,
      ...(softcap !== undefined && { softcap }),
      ...(sinks && { sinks }),
    },
    {
      do: "linear",
      of: "attended",
      site: { id: "attentionOutput", width: queryWidth },
      maps: [{ map: linearMap("o_proj", hiddenSize, queryWidth, where.o, units("cols")), into: to.into }],
      ...(to.add && { add: true }),
    },
  ];
}

export interface LatentSizes {
  hiddenSize: number;
  heads: number;
  /** Of what queries are made of; undefined where they are made of the input. */
  queryRank?: number;
  /** Of what keys and values are made of. */
  rank: number;
  /** Columns of a key that are not rotated, and those that are, which all heads share. */
  plain: number;
  rotated: number;
  value: number;
}

export interface LatentOptions {
  rope: RopeSpec;
  pairs: "halves" | "neighbours";
  norms: { query?: NormSpec; latent: NormSpec };
  scale: number;
}

/** Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), described as keys and values that are made in full. */
export function latent(
  { hiddenSize, heads, queryRank, rank, plain, rotated, value }: LatentSizes,
  where: { queryLatent?: Stored; q: Stored; latent: Stored; expand: Stored; o: Stored },
  { rope, pairs, norms, scale }: LatentOptions,
): Part {
  const keyWidth = plain + rotated;
  const units = (axis: Units["axis"]): MapOptions => ({
    units: [{ kind: "heads", group: "attention", axis, count: heads }],
  });
  const ofHead = (first: number, run: number) =>
    rowsOf(where.expand, heads * (plain + value), { first, run, stride: plain + value, runs: heads });
  const [latentRows, keyRows] = stacked(where.latent, [rank, rotated]);
  const made = [
    { map: linearMap("kv_a_proj", rank, hiddenSize, latentRows), into: "latent" },
    { map: linearMap("k_rope_proj", rotated, hiddenSize, keyRows), into: "sharedKey" },
  ];
  const site = (id: string, width: number): Site => ({ id, width });
  const turn = (of: Buffer, every: number, first: number): Step => ({
    do: "rotate",
    rope,
    of: [of],
    every,
    first,
    width: rotated,
    pairs,
  });
  return (from, to) => {
    const q = (cols: number) => ({
      map: linearMap("q_proj", heads * keyWidth, cols, where.q, units("rows")),
      into: "q",
    });
    const input = { do: "linear", of: from, site: site("attentionInput", hiddenSize) } as const;
    return [
      ...(queryRank === undefined || where.queryLatent === undefined
        ? [{ ...input, maps: [q(hiddenSize), ...made] }]
        : [
            {
              ...input,
              maps: [
                { map: linearMap("q_a_proj", queryRank, hiddenSize, where.queryLatent), into: "queryLatent" },
                ...made,
              ],
            },
            ...(norms.query ? [norm(norms.query, "queryLatent", "queryLatent")] : []),
            { do: "linear" as const, of: "queryLatent", site: site("queryLatent", queryRank), maps: [q(queryRank)] },
          ]),
      norm(norms.latent, "latent", "latent"),
      turn("q", keyWidth, plain),
      turn("sharedKey", rotated, 0),
      {
        do: "linear",
        of: "latent",
        site: site("latent", rank),
        maps: [
          { map: linearMap("k_b_proj", heads * plain, rank, ofHead(0, plain), units("rows")), into: "plainKeys" },
          { map: linearMap("v_b_proj", heads * value, rank, ofHead(plain, value), units("rows")), into: "v" },
        ],
      },
      {
        do: "join",
        heads,
        of: [
          { buffer: "plainKeys", width: plain, heads },
          { buffer: "sharedKey", width: rotated, heads: 1 },
        ],
        into: "k",
      },
      {
        do: "attend",
        q: "q",
        k: "k",
        v: "v",
        into: "attended",
        heads,
        kv: { heads, k: keyWidth, v: value },
        scale,
        sight: { kind: "causal" },
        latent: { latent: "latent", rank, key: "sharedKey", width: rotated },
      },
      {
        do: "linear",
        of: "attended",
        site: site("attentionOutput", heads * value),
        maps: [{ map: linearMap("o_proj", hiddenSize, heads * value, where.o, units("cols")), into: to.into }],
        ...(to.add && { add: true }),
      },
    ];
  };
}

const rotate = (of: readonly Buffer[], { rope, width }: Rotation, headDim: number): Step => ({
  do: "rotate",
  rope,
  of,
  every: headDim,
  first: 0,
  width: width ?? headDim,
  pairs: "halves",
});

export interface MlpSizes {
  hiddenSize: number;
  intermediateSize: number;
}

interface MlpOptions<F = ActivationFunction> {
  f: F;
  expert?: number;
  /** Of an MLP that stands beside another one in its block: begins its roles, sites and buffers. */
  name?: string;
  clamped?: ActivateStep["clamped"];
}

/** An MLP beside another one keeps its size: rarefy.json has one size for a block. */
const neurons = (
  { intermediateSize }: MlpSizes,
  axis: Units["axis"],
  { expert, name }: Pick<MlpOptions, "expert" | "name">,
): MapOptions => {
  if (name !== undefined) return { expert };
  const group = expert === undefined ? "mlp" : `experts.${expert}`;
  return { expert, units: [{ kind: "neurons", group, axis, count: intermediateSize }] };
};

const mlpInput = (sizes: MlpSizes): Site => ({ id: "mlpInput", width: sizes.hiddenSize });

/** down(hidden), where `hidden` is a buffer. */
const downStep = (
  sizes: MlpSizes,
  where: Stored,
  hidden: Buffer,
  to: { into: Buffer; add?: true },
  options: Pick<MlpOptions, "expert" | "name">,
): Step => ({
  do: "linear",
  of: hidden,
  site: { id: named(options, "mlpHidden"), width: sizes.intermediateSize },
  maps: [
    {
      map: linearMap(
        named(options, "down_proj"),
        sizes.hiddenSize,
        sizes.intermediateSize,
        where,
        neurons(sizes, "cols", options),
      ),
      into: to.into,
    },
  ],
  ...(to.add && { add: true }),
});

const named = ({ name }: Pick<MlpOptions, "name">, what: string): string =>
  name === undefined ? what : `${name}_${what}`;

/** down(f(gate(x)) ⊙ up(x)) (GLU variants, arXiv 2002.05202) */
export function gated(
  sizes: MlpSizes,
  where: { gate: Stored; up: Stored; down: Stored },
  options: MlpOptions<GateFunction>,
): Part {
  const { hiddenSize, intermediateSize } = sizes;
  const { clamped } = options;
  const both = options.f === "drelu";
  const f = options.f === "drelu" ? "relu" : options.f;
  const inner = (role: string, place: Stored) =>
    linearMap(named(options, role), intermediateSize, hiddenSize, place, neurons(sizes, "rows", options));
  const [gate, up] = [named(options, "gate"), named(options, "up")];
  return (from, to) => [
    {
      do: "linear",
      of: from,
      site: mlpInput(sizes),
      maps: [
        { map: inner("gate_proj", where.gate), into: gate },
        { map: inner("up_proj", where.up), into: up },
      ],
    },
    ...(both ? [{ do: "activate", f, of: up, into: up } as const] : []),
    // The hidden values take the place of the gate.
    {
      do: "activate",
      f,
      of: gate,
      times: up,
      into: gate,
      site: { id: named(options, "mlpGate"), width: intermediateSize },
      ...(clamped && { clamped }),
    },
    downStep(sizes, where.down, gate, to, options),
  ];
}

/** down(f(up(x))) */
export function plain(sizes: MlpSizes, where: { up: Stored; down: Stored }, options: MlpOptions): Part {
  const { hiddenSize, intermediateSize } = sizes;
  const up = linearMap("up_proj", intermediateSize, hiddenSize, where.up, neurons(sizes, "rows", options));
  return (from, to) => [
    { do: "linear", of: from, site: mlpInput(sizes), maps: [{ map: up, into: "up" }] },
    { do: "activate", f: options.f, of: "up", into: "up" },
    downStep(sizes, where.down, "up", to, options),
  ];
}

/** first(x) + second(x), both added to the residual stream. */
export const together =
  (first: Part, second: Part): Part =>
  (from, to) => [...first(from, to), ...second(from, to)];

/** Each row through a few of several experts (arXiv 1701.06538). @param expert the MLP of one, by its number */
export function mixture(
  count: number,
  router: Omit<RouterSpec, "map">,
  where: { router: Stored; hiddenSize: number },
  expert: (number: number) => Part,
): Part {
  const map = linearMap("router", count, where.hiddenSize, where.router);
  return (from, to) => [
    {
      do: "mixture",
      of: from,
      ...to,
      router: { map, ...router },
      experts: Array.from({ length: count }, (_, e) => ({
        steps: expert(e)(from, { into: "expertOut" }),
        out: "expertOut",
      })),
      site: { id: "expertOutput", width: where.hiddenSize },
    },
  ];
}
