import type { Server as NodeServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { UsageError } from "../core/index.js";
import type { Server } from "./server.js";

/** Where a server listens. */
export interface ListenOptions {
  /** Default 127.0.0.1: nobody but this machine. */
  host?: string;
  /** Default 8080; 0 takes one that is free. */
  port?: number;
  /** How long a client may take to send a request. Default 30 s. */
  receiveTimeoutMs?: number;
}

/** A server on a socket. */
export interface Listening {
  /** "http://127.0.0.1:8080" */
  readonly url: string;
  /** Takes no connections any more, lets texts under way end for up to `timeoutMs`, then closes. @returns whether all ended */
  close(timeoutMs?: number): Promise<boolean>;
}

/** Addresses that only this machine reaches. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);

/** Names by which a server on a loopback address is known. */
export const loopbackHosts = ["localhost", "127.0.0.1", "[::1]"] as const;

/** Serves over HTTP with Node.js. @throws UsageError where it cannot listen */
export async function listen(server: Server, options: ListenOptions = {}): Promise<Listening> {
  const { host = "127.0.0.1", port = 8080, receiveTimeoutMs = 30_000 } = options;
  const node = createAdaptorServer({ fetch: server.app.fetch }) as NodeServer;
  node.requestTimeout = receiveTimeoutMs;
  node.headersTimeout = receiveTimeoutMs;
  // Longer than clients and proxies keep idle connections: else they write into one that is just being closed.
  node.keepAliveTimeout = 65_000;
  await new Promise<void>((resolve, reject) => {
    node.once("error", (cause: NodeJS.ErrnoException) => {
      const problem = cause.code === "EADDRINUSE" ? "another program listens there; take another port" : cause.message;
      reject(new UsageError(`${host}:${port}: ${problem}`, { cause }));
    });
    node.listen(port, host, resolve);
  });
  const { port: taken, family, address } = node.address() as AddressInfo;
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${taken}`,
    async close(timeoutMs = 30_000) {
      const closed = new Promise<void>((resolve) => node.close(() => resolve()));
      const all = await server.drain(timeoutMs);
      await server[Symbol.asyncDispose]();
      node.closeIdleConnections();
      // What was written is on its way; a client that does not read is not waited for.
      const late = setTimeout(() => node.closeAllConnections(), 1000);
      await closed;
      clearTimeout(late);
      return all;
    },
  };
}
