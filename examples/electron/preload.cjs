// The page gets its channel to the model, and nothing else of Electron.
const { ipcRenderer } = require("electron");

ipcRenderer.once("connected", ({ ports }) => window.postMessage("connected", "*", ports));
window.addEventListener("DOMContentLoaded", () => ipcRenderer.send("connect"));
