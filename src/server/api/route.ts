import type { VerifySessions } from "../engine/verifySession.js";
import type { ServerEvent } from "../http/events.js";
import type { Scope } from "../http/scope.js";
import type { ServedModel } from "../models/servedModel.js";

/** What bodies say of the model that answers. */
export interface ModelFields {
  /** May be left out where there is one model. */
  readonly model?: string | null;
  readonly rarefy?: { readonly adapter?: string | null } | null;
}

/** What an endpoint works with. */
export interface RouteContext {
  readonly scope: Scope;
  readonly sessions: VerifySessions;
  /**
   * The model that a body names, with the adapter that it names, for as long as the request lasts.
   * @throws ApiError where there is none of that name
   */
  model(body: ModelFields): Promise<ServedModel>;
}

/** What an endpoint gives: an object, or events one after another. */
export type RouteAnswer = { readonly body: object } | { readonly events: AsyncIterable<ServerEvent> };

export type Route = (context: RouteContext, body: unknown) => Promise<RouteAnswer>;

/** Identifiers as the API has them: a prefix and letters. */
export const newId = (prefix: string): string => `${prefix}${crypto.randomUUID().replaceAll("-", "")}`;

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);
