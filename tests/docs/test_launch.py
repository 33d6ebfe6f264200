"""The launch examples: each is what its tool reads, and the Slurm script trains where Slurm's commands are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from r1core.testing.tiny import tiny_model_dir

LAUNCH = Path(__file__).parents[2] / "examples" / "launch"


def test_the_kubernetes_job_starts_a_process_a_gpu_on_every_pod() -> None:
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    told = get_args_parser().parse_args(container["args"])
    assert container["command"][1:] == ["-m", "torch.distributed.run"]
    assert int(told.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(told.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert told.rdzv_endpoint.startswith(f"{job['metadata']['name']}-0.{service['metadata']['name']}:")
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert told.module
    assert [told.training_script, *told.training_script_args][:3] == ["r1core", "adapt", "medical"]
    assert {one["name"] for one in pod["volumes"]} == {one["name"] for one in container["volumeMounts"]}


@pytest.mark.slow
def test_the_slurm_script_trains(tmp_path: Path) -> None:
    tiny_model_dir(tmp_path / "tiny")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in (
        ("srun", 'exec "$@"'),
        ("scontrol", "echo 127.0.0.1"),
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    (tmp_path / "notes.csv").write_text("text,answer\n" + "".join(f"note {n},{'ab'[n % 2]}\n" for n in range(40)))
    recipe = '[run]\nname = "r"\nplugins = []\n[model]\npath = "tiny"\n[data.files]\ntrain = "notes.csv"\n'
    (tmp_path / "own.toml").write_text(recipe)
    slurm = {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        ["bash", str(LAUNCH / "slurm.sh"), "train", "--recipe", "own.toml", "--run", "runs/r"],
        cwd=tmp_path,
        env={**os.environ, **slurm, **quiet, "PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs/r/adapter/adapter_model.safetensors").is_file()
