// A window in which a model writes. The model runs in a process of its own, so that neither the window nor this process waits for it.
//   npm install && RAREFY_MODEL=org/name npx electron .
import { join } from "node:path";
import { app, BrowserWindow, ipcMain, MessageChannelMain, utilityProcess } from "electron";

const beside = (name) => join(import.meta.dirname, name);

await app.whenReady();
// In an archive (asar) rarefy is to lie unpacked: its workers and native kernels are files that are loaded by path.
const model = utilityProcess.fork(beside("model.mjs"), [process.env.RAREFY_MODEL ?? "tiny-6m"]);
const failed = (code) => app.exit(code === 0 ? 0 : 1);
model.once("exit", failed);
// Every page that asks gets a channel to the model.
ipcMain.on("connect", ({ senderFrame }) => {
  const { port1, port2 } = new MessageChannelMain();
  model.postMessage(undefined, [port1]);
  senderFrame?.postMessage("connected", undefined, [port2]);
});
const window = new BrowserWindow({ width: 720, height: 480, webPreferences: { preload: beside("preload.cjs") } });
window.on("closed", () => app.quit());
app.on("quit", () => {
  model.off("exit", failed);
  model.kill();
});
await window.loadFile(beside("index.html"));
