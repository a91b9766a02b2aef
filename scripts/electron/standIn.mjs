// What the example for Electron imports of it, as far as plain Node.js can play it: processes are threads, windows are only noted.
import { EventEmitter, once } from "node:events";
import { MessageChannel, Worker } from "node:worker_threads";

export const windows = [];
const workers = [];

export const app = Object.assign(new EventEmitter(), {
  whenReady: async () => {},
  quit: () => {},
  exit: (code) => process.exit(code),
});
export const ipcMain = new EventEmitter();

export class MessageChannelMain {
  constructor() {
    const { port1, port2 } = new MessageChannel();
    Object.assign(this, { port1, port2 });
  }
}

export class BrowserWindow extends EventEmitter {
  constructor(options) {
    super();
    this.options = options;
    windows.push(this);
  }

  async loadFile(file) {
    this.file = file;
  }
}

export const utilityProcess = {
  fork(path, argv) {
    const execArgv = ["--import", new URL("parentPort.mjs", import.meta.url).href];
    const worker = new Worker(path, { argv, execArgv });
    workers.push(worker);
    const process = Object.assign(new EventEmitter(), {
      postMessage: (message, ports) => worker.postMessage({ message, ports }, ports),
      kill: () => worker.terminate(),
    });
    worker.on("exit", (code) => process.emit("exit", code));
    worker.on("error", (error) => {
      throw error;
    });
    return process;
  },
};

/** What a page and its preload do: asks for a channel. @returns the page's end */
export function connect() {
  return new Promise((resolve) => {
    ipcMain.emit("connect", { senderFrame: { postMessage: (_channel, _message, [port]) => resolve(port) } });
  });
}

/** Ends the processes, as closing the window does. */
export async function quit() {
  const ended = workers.map((worker) => once(worker, "exit"));
  app.emit("quit");
  await Promise.all(ended);
}
