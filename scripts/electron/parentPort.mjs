// `process.parentPort` of a process of Electron's, played in a worker thread of Node.js.
import { isMainThread, parentPort } from "node:worker_threads";

/** Messages come as events with `data`, as Electron's ports give them. */
const asElectron = (port) => ({
  on: (event, listener) => port.on(event, event === "message" ? (data) => listener({ data }) : listener),
  start: () => port.start(),
  postMessage: (message) => port.postMessage(message),
});

if (!isMainThread && process.parentPort === undefined) {
  // What is posted before anyone listens waits, as in Electron.
  process.parentPort = {
    on(event, listener) {
      parentPort.on(event, ({ message, ports }) => listener({ data: message, ports: ports.map(asElectron) }));
    },
  };
}
