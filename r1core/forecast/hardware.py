"""GPUs by name: what their data sheets say of dense products, memory and its bandwidth; `4xA100-80G` is four of one.

Products are dense (no structured sparsity), bf16 with fp32 sums; a GPU without bf16 is not in the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from r1core.api import UserError
from r1core.recipe.problems import did_you_mean


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU.

    Parameters
    ----------
    bf16, fp32 : peak FLOP/s of dense products (fp32 without TF32, as torch multiplies unasked).
    bandwidth : of its memory, bytes/s.
    memory : GiB.
    source : the data sheet.
    """

    name: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: int
    source: str


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-40G", 312e12, 19.5e12, 1.555e12, 40, "NVIDIA A100 datasheet (SXM, 2020)"),
        Gpu("A100-80G", 312e12, 19.5e12, 2.039e12, 80, "NVIDIA A100 80GB datasheet (SXM, 2021)"),
        Gpu("H100-80G", 989e12, 67e12, 3.35e12, 80, "NVIDIA H100 datasheet (SXM, 2023)"),
        Gpu("H100-PCIE", 756e12, 51e12, 2.0e12, 80, "NVIDIA H100 datasheet (PCIe, 2022)"),
        Gpu("H200", 989e12, 67e12, 4.8e12, 140, "NVIDIA H200 datasheet (SXM, 2024; 141 GB)"),
        Gpu("B200", 2250e12, 80e12, 8.0e12, 180, "NVIDIA DGX B200 datasheet (a GPU's share, 2024)"),
        Gpu("L4", 121e12, 30.3e12, 0.3e12, 24, "NVIDIA L4 datasheet (2023)"),
        Gpu("L40S", 362e12, 91.6e12, 0.864e12, 48, "NVIDIA L40S datasheet (2023)"),
        Gpu("A10", 125e12, 31.2e12, 0.6e12, 24, "NVIDIA A10 datasheet (2021)"),
        Gpu("A6000", 154.8e12, 38.7e12, 0.768e12, 48, "NVIDIA RTX A6000 datasheet, GA102 whitepaper (2020)"),
        Gpu("RTX3090", 71e12, 35.6e12, 0.936e12, 24, "NVIDIA GA102 whitepaper (2020)"),
        Gpu("RTX4090", 165.2e12, 82.6e12, 1.008e12, 24, "NVIDIA Ada whitepaper (2022)"),
        Gpu("RTX5090", 209.5e12, 104.8e12, 1.792e12, 32, "NVIDIA RTX Blackwell whitepaper (2025)"),
    )
}
SMALLEST = {"A100": "A100-40G", "H100": "H100-80G"}
"""What a name without a size means."""
MOST = 1024
"""GPUs that can be asked for; data parallelism over more is not what the forecast is about."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Several GPUs of one kind."""

    gpu: Gpu
    number: int = 1

    def __str__(self) -> str:
        return f"{self.number}x{self.gpu.name}"


def hardware(text: str) -> Hardware:
    """`4xA100-80G`, `H200`, `2 x rtx4090`.

    Raises
    ------
    UserError : for a name that is not in the table, with the nearest one, or a number that is none.
    """
    told = re.fullmatch(r"\s*(?:(\d{1,6})\s*[xX*]\s*)?([A-Za-z][\w .-]*?)\s*", text)
    fix = f"NxNAME, for instance 4xA100-80G; known: {', '.join(GPUS)}"
    if told is None or (told[1] is not None and not 1 <= int(told[1]) <= MOST):
        raise UserError(f"--hardware {text!r}: expected a number of GPUs (1 to {MOST:,}) and a name", fix=fix)
    name = _plain(told[2])
    known = {_plain(one): one for one in GPUS} | SMALLEST
    if name in ("V100", "T4", "P100"):
        raise UserError(f"--hardware {text!r}: a {name} has no bf16, which training on a GPU computes in", fix=fix)
    if name not in known:
        near = did_you_mean(name, known)
        meant = f"did you mean {known[near]}? " if near else ""
        raise UserError(f"--hardware {text!r}: no figures for a {told[2]!r}", fix=meant + fix)
    return Hardware(GPUS[known[name]], int(told[1] or 1))


def local() -> tuple[list[str], Hardware | None]:
    """Names of this machine's NVIDIA GPUs as their driver gives them, and the first one where the table knows it."""
    place = Path("/proc/driver/nvidia/gpus")
    names = []
    for file in sorted(place.glob("*/information")) if place.is_dir() else []:
        told = re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        names.append(told[1].strip() if told else "unknown")
    return names, gpu_named(names[0]) if names else None


def gpu_named(told: str) -> Hardware | None:
    """The GPU that a driver's name means: `NVIDIA H100 80GB HBM3`, `NVIDIA A100-SXM4-40GB`, `NVIDIA RTX A6000`."""
    words = re.split(r"[\s-]+", re.sub(r"\b(RTX) (?=\d)", r"\1", told.upper()))
    alike = [gpu for name, gpu in GPUS.items() if name.partition("-")[0] in words]
    exact = [gpu for gpu in alike if {gpu.name.partition("-")[2], f"{gpu.name.partition('-')[2]}B"} & set(words)]
    chosen = [gpu for gpu in exact if "PCIE" in words and gpu.name.endswith("PCIE")] or exact or alike
    return Hardware(chosen[0]) if chosen else None


def _plain(name: str) -> str:
    """`A100-80GB SXM` and `a100_80g` as one."""
    bare = re.sub(r"[\s_.-]+|SXM\d?", "", name.upper()).removeprefix("NVIDIA")
    return re.sub(r"(?<=\d)GB$", "G", bare)
