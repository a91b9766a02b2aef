"""llama.cpp's own HTTP server, as the package xllamacpp (PyPI) brings it, for serve-speed.mjs:

    python3 -m venv venv && venv/bin/pip install xllamacpp==2026.10.11549
    venv/bin/python peer_llama_server.py FILE.gguf THREADS CLIENTS

It prints its address once the model is loaded, and runs until it is told to stop.
"""

import signal
import sys

import xllamacpp

path, threads, clients = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_parallel = clients
# A text of 256 tokens for every client.
params.n_ctx = 256 * clients
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.hostnames = ["127.0.0.1"]
params.port = 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
