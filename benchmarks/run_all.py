"""`make bench`: every benchmark in turn; results as JSON in benchmarks/results/.

Run: python benchmarks/run_all.py [NAME ...]. `adapt` takes as long as three demonstrations, `training_cpu` makes an
environment for TRL first; what needs a GPU runs where there is one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ALL = (
    "startup", "conversion", "mask_time", "constraint_share", "rule_leaks", "rule_speed", "dose_caps",
    "tfidf_baseline", "loop_overhead", "loss_parity", "training_cpu", "pool_time", "continual", "adapt", "forecast",
    "umls_scale", "kv_cache", "normalisation", "medical_tasks", "interaction_warnings", "private_speed",
    "private_faults", "alignment", "events", "numeric_programs", "numeric_provenance", "var_models",
    "var_garch", "var_backtest", "var_gate", "var_portfolio", "r1_experts", "r1_expert_lora", "r1_rope",
)  # fmt: skip
ON_A_GPU = (
    "gpu_checks", "training_gpu", "many_gpus", "numeric_choice", "finance_direction", "r1_checks", "r1_attention",
    "r1_long", "kv_cache_gpu", "visual_questions", "r1_training", "r1_retrieval",
)  # fmt: skip
CUDA = ("--device", "cuda")
WORDS = {
    "training_cpu": ("--install", "runs/peers", "--folder", "runs/training_cpu"),
    "visual_questions": (*CUDA, "--record"),
    "r1_training": (*CUDA, "--record"),
    "r1_retrieval": (*CUDA, "--record"),
}
"""What a benchmark is called with, where it is called with something."""


def main() -> int:
    failed = []
    here = (*ALL, *ON_A_GPU) if shutil.which("nvidia-smi") else ALL
    for name in sys.argv[1:] or here:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *WORDS.get(name, ())]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else f"results in {Path(__file__).parent / 'results'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
