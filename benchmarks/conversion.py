"""What converting the embedded model costs, beside loading the same file with transformers.

Each runs in a fresh process whose whole CPU time, imports included, is taken from the operating system.

    python benchmarks/conversion.py
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import record

TARGET = 10.0  # CPU-seconds

CONVERT = "from r1core_smollm2.source import NAME, SmolLM2Source; SmolLM2Source().materialise(NAME)"
PEER = """
import torch
from transformers import AutoModelForCausalLM, GgufConfig
from r1core_smollm2.wheel import locate
path = locate().path
plain = GgufConfig(dequantize=True)
AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16, quantization_config=plain)
"""


def cpu_seconds(code: str, cache: str) -> float:
    """User and system time of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {
        **os.environ,
        "R1CORE_CACHE": cache,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        first, second = cpu_seconds(CONVERT, cache), cpu_seconds(CONVERT, cache)
        peer = f"transformers, gguf_file= (loads only, writes nothing): {cpu_seconds(PEER, cache):.1f} CPU-s"
    figures = [
        ("conversion of the embedded model, once", first, TARGET, peer),
        ("the same call with the converted model in the cache", second, None, None),
    ]
    rows = [
        {
            "figure": figure,
            "value": round(value, 2),
            "unit": "CPU-seconds",
            "target": target,
            "met": None if target is None else value <= target,
            "peer": peer,
        }
        for figure, value, target, peer in figures
    ]
    record.write("conversion", rows)


if __name__ == "__main__":
    main()
