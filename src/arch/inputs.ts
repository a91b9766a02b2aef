import type { BlockSpec, Buffer, LinearSpec, LinearStep, NormSpec, RouterSpec, Step } from "./spec.js";

/** Where a linear map of a block stands. */
export interface Place {
  map: LinearSpec;
  step: LinearStep;
  /** The expert that it belongs to, in a mixture of experts. */
  expert?: number;
  /** The part of the block that it is in, in Llama's words. */
  module: "self_attn" | "mlp";
}

/**
 * Values that linear maps read, and what makes them: a channel can be divided where it is made and multiplied wherever it is
 * read, and in real numbers nothing changes.
 */
export interface BlockInput {
  readers: readonly Place[];
  /** Routers that read it too. */
  routers: readonly RouterSpec[];
  /** The expert that has it for itself. */
  expert?: number;
  /** What makes its channels one by one; left out where nothing does, or where something else reads them too. */
  maker?: ChannelMaker;
}

/**
 * The weight and bias of a norm, or the rows and bias of a map. With `ofValueHeads` there are as many channels as the map has
 * rows only while every query head has a value head of its own.
 */
export type ChannelMaker = { norm: NormSpec } | { map: LinearSpec; ofValueHeads?: true };

/** One writing of a buffer, until the next. */
interface Values {
  readers: Place[];
  routers: RouterSpec[];
  expert?: number;
  maker?: ChannelMaker;
  /** What is no linear map reads it. */
  readElsewhere: boolean;
}

type Buffers = Map<Buffer, Values>;

/** Every linear map of a block but its routers, in the order of its steps. */
export const placesOf = (block: BlockSpec): Place[] => walk(block).places;

/** What the linear maps of a block read, in the order in which a block comes to it. */
export const inputsOf = (block: BlockSpec): BlockInput[] => walk(block).inputs;

function walk({ steps }: BlockSpec): { places: Place[]; inputs: BlockInput[] } {
  const places: Place[] = [];
  const order = new Set<Values>();
  // What attention makes is still its own part when it is projected back.
  let attended: Buffer | undefined;
  let attends = steps.some((step) => step.do === "attend");

  const visit = (steps: readonly Step[], buffers: Buffers, expert: number | undefined): void => {
    const read = (buffer: Buffer): Values => {
      const found = buffers.get(buffer);
      if (found !== undefined) return found;
      const made: Values = { readers: [], routers: [], readElsewhere: false };
      buffers.set(buffer, made);
      return made;
    };
    const readElsewhere = (buffer: Buffer): Values => {
      const values = read(buffer);
      values.readElsewhere = true;
      return values;
    };
    const write = (buffer: Buffer, maker?: ChannelMaker) =>
      buffers.set(buffer, {
        readers: [],
        routers: [],
        readElsewhere: false,
        ...(expert !== undefined && { expert }),
        ...(maker && { maker }),
      });
    const mapBehind = (values: Values) =>
      values.maker !== undefined && "map" in values.maker ? values.maker.map : undefined;

    for (const step of steps) {
      switch (step.do) {
        case "norm":
          readElsewhere(step.of);
          write(step.into, { norm: step.norm });
          break;
        case "linear": {
          const values = read(step.of);
          order.add(values);
          const module = attends ? "self_attn" : "mlp";
          if (step.of === attended) attends = false;
          for (const { map, into } of step.maps) {
            const place: Place = { map, step, module, ...(expert !== undefined && { expert }) };
            places.push(place);
            values.readers.push(place);
            if (step.add) readElsewhere(into);
            write(into, step.add ? undefined : { map });
          }
          break;
        }
        case "attend": {
          readElsewhere(step.q);
          readElsewhere(step.k);
          const map = mapBehind(readElsewhere(step.v));
          write(step.into, map && { map, ofValueHeads: true });
          attended = step.into;
          break;
        }
        case "multiplicative":
          readElsewhere(step.of);
          if (step.of === attended) attends = false;
          for (const { into } of step.maps) {
            if (step.add) readElsewhere(into);
            write(into);
          }
          break;
        case "convolve":
          readElsewhere(step.of);
          for (const { into } of step.maps) write(into);
          break;
        case "choose":
          readElsewhere(step.from);
          readElsewhere(step.of);
          write(step.into);
          break;
        case "activate": {
          readElsewhere(step.of);
          const map = step.times === undefined ? undefined : mapBehind(readElsewhere(step.times));
          write(step.into, map && step.clamped === undefined ? { map } : undefined);
          break;
        }
        case "mixture": {
          const values = read(step.of);
          values.routers.push(step.router);
          for (const [e, { steps }] of step.experts.entries()) visit(steps, new Map(buffers), e);
          if (step.add) readElsewhere(step.into);
          write(step.into);
          break;
        }
        case "rotate":
          for (const buffer of step.of) {
            readElsewhere(buffer);
            write(buffer);
          }
          break;
        case "join":
          for (const { buffer } of step.of) readElsewhere(buffer);
          write(step.into);
          break;
        case "add":
          readElsewhere(step.of);
          readElsewhere(step.into);
          write(step.into);
          break;
        case "cap":
          readElsewhere(step.of);
          write(step.of);
          break;
      }
    }
  };
  visit(steps, new Map(), undefined);
  const inputs = [...order].map(({ readers, routers, expert, maker, readElsewhere }) => ({
    readers,
    routers,
    ...(expert !== undefined && { expert }),
    ...(maker && !readElsewhere && { maker }),
  }));
  return { places, inputs };
}
