// rarefy against node-llama-cpp in one Node process, taking turns.
//
//   node run.mjs [--model .models/llama-1.1b] [--threads 2] [--rounds 5] [--prompt 128] [--tokens 32]
//                [--weights q8,q4] [--sparsity 0.5] [--backend wasm] [--native best,0] [--structures dense,2:4] [--peer-set haswell] [--out result.json]
//
// --native: which kernels of ours take part, "best", a set by name (amx, avx512, avxvnni, avx2), 0 for WebAssembly alone. --structures: the
// model as it is, or its blocks' matrices cut to 2:4 while they are read. --peer-set: which of llama.cpp's kernels take part instead of the
// best (peer-sets.mjs).

import { directoryFiles } from "../dist/io/index.node.js";
import { runMatch } from "./match.mjs";
import { openOurs } from "./ours.mjs";
import { openLlamaCpp } from "./peer-llamacpp.mjs";

const open = (directory) => ({
  peerName: "node-llama-cpp",
  openPeer: openLlamaCpp,
  openOurs: (options) => openOurs(directoryFiles(directory), options),
  close() {},
});

await runMatch(open, {});
