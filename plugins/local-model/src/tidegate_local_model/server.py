"""The process that holds the model: llama.cpp's server, by way of `xllamacpp`.

Run as a file, with the folder that `xllamacpp` was installed into on PYTHONPATH. It imports
nothing of Tidegate: the proxy's libraries would cost it memory for nothing. The key that it asks
for comes in the variable TIDEGATE_LOCAL_MODEL_KEY, not on the command line, which others can read.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

KEY = "TIDEGATE_LOCAL_MODEL_KEY"
NAME = "smollm2"


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM, or until the process that started this one is gone."""
    options = parse(arguments)
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    import xllamacpp  # type: ignore[import-not-found]

    server = xllamacpp.Server(parameters(xllamacpp, options))
    print(f"the local model answers on {server.listening_address}", file=sys.stderr, flush=True)
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)  # its threads don't end by themselves


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tidegate-local-model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=4096, help="tokens of one conversation")
    parser.add_argument("--parallel", type=int, default=2, help="conversations at once")
    parser.add_argument("--template", help="a chat template; default: the model's own")
    return parser.parse_args(arguments)


def parameters(xllamacpp: Any, options: argparse.Namespace) -> Any:
    """llama.cpp's parameters: a small server on loopback that shows nobody's prompts."""
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.context * options.parallel
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_predict = 1024  # where the caller sets no limit: a small model may never stop
    params.sampling.temp = 0.0  # where the caller says nothing: at 0.8 so small a model wanders off
    params.cache_ram_mib = 64
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.ui = False
    params.endpoint_slots = False
    params.warmup = False
    params.verbosity = 1
    if os.environ.get(KEY):
        params.api_keys = [os.environ[KEY]]
    if options.template:
        params.chat_template = Path(options.template).read_text(encoding="utf-8")
    return params


if __name__ == "__main__":
    sys.exit(main())
