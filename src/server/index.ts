/// <reference lib="esnext.disposable" preserve="true" />
export type { EngineOptions } from "./engine/engine.js";
export type { AppOptions } from "./http/app.js";
export { isLoopback, type Listening, type ListenOptions, listen, loopbackHosts } from "./listen.js";
export type { AdapterEntry, ModelEntry } from "./models/servedModel.js";
export { appDefaults, createServer, engineDefaults, type Server, type ServerOptions } from "./server.js";
