import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { ApiError } from "./errors.js";

const digest = (text: string) => createHash("sha256").update(text).digest();

/** Lets only those in who know one of the keys. Without keys everybody. */
export function bearerKeys(keys: readonly string[]): MiddlewareHandler {
  const known = keys.map(digest);
  return async (c, next) => {
    if (known.length > 0) {
      const given = /^Bearer\s+(.+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
      const own = digest(given ?? "");
      // All are compared, so that the time tells nothing.
      const matches = known.filter((key) => timingSafeEqual(key, own)).length;
      if (given === undefined || matches === 0) {
        throw new ApiError(401, "this server wants a key: Authorization: Bearer KEY", {
          type: "authentication_error",
          code: "invalid_api_key",
        });
      }
    }
    await next();
  };
}

/**
 * Lets only requests in that name the server as it is known. A page elsewhere whose name was turned to this machine (DNS
 * rebinding) names itself.
 */
export function onlyHosts(hosts: readonly string[]): MiddlewareHandler {
  return async (c, next) => {
    const host = (c.req.header("host") ?? "").replace(/:\d+$/, "").toLowerCase();
    if (!hosts.includes(host)) {
      throw new ApiError(403, "this server answers to its own name only", {
        type: "permission_error",
        code: "wrong_host",
      });
    }
    await next();
  };
}

/** Bodies are JSON: what a page may send to other sites unasked (text/plain, forms) is refused. */
export const jsonOnly: MiddlewareHandler = async (c, next) => {
  const type = (c.req.header("content-type") ?? "").split(";")[0].trim().toLowerCase();
  if (c.req.method === "POST" && type !== "application/json" && !type.endsWith("+json")) {
    throw new ApiError(415, "the body must be application/json", { code: "unsupported_media_type" });
  }
  await next();
};
