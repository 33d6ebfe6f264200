"""A run's adapter put into its base model's own weights, as a plain Hugging Face directory that needs no r1core.

The sums are done in fp32 and rounded once, to the dtype in which the base itself is stored or to the one asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from r1core.api import UserError
from r1core.data.hub import offline
from r1core.model import gelu_lora, pool_check
from r1core.model.adapter import load_adapter
from r1core.model.load import DTYPES, load_model
from r1core.model.own_files import LAYERS
from r1core.model.resolve import BaseModel
from r1core.runs.files import directory_replaced, sha256_tree, write_json

MARK = "r1core_merge.json"
"""Says what was merged, and that the directory may be written again."""


def refuse_unmergeable(adapter: Path) -> None:
    """Refuse what no plain model can hold, before a weight is read.

    Raises
    ------
    UserError : for extra layers, and for a kind of adapter that does not merge, by name.
    """
    fix = "answer with r1core generate, which needs no merging"
    if (adapter / LAYERS).exists():
        raise UserError(f"{adapter / LAYERS}: extra layers are modules of their own, which no plain model has", fix=fix)
    own = adapter / gelu_lora.CONFIG
    if own.is_file():
        kind = json.loads(own.read_text(encoding="utf-8")).get("kind")
        known = {gelu_lora.KIND: gelu_lora.NOT_MERGEABLE, pool_check.KIND: pool_check.NOT_MERGEABLE}
        why = known.get(kind, "it is no update of a weight")
        raise UserError(f'{own}: adapter.kind = "{kind}" cannot be merged: {why}', fix=fix)


def refuse_foreign(out: Path) -> None:
    """Refuse to replace anything but an earlier merge.

    Raises
    ------
    UserError : where a file or a folder with other content stands.
    """
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists, and r1core merge did not write it", fix="give another --out")


def merge(base: BaseModel, adapter: Path, tokenizer: Any, out: Path, *, precision: str = "base") -> str:
    """Write weights, configuration, generation configuration and tokenizer to `out`, as a whole or not at all.

    Parameters
    ----------
    precision : `base` (as the base is stored), `fp32` or `bf16`.

    Returns
    -------
    str : the dtype of the weights that were written, `float32` or `bfloat16`.

    Raises
    ------
    UserError : when the adapter does not merge, or `out` holds something else.
    """
    refuse_unmergeable(adapter)
    refuse_foreign(out)
    dtype = DTYPES[precision] if precision != "base" else _stored(base)
    model = load_model(base, precision="fp32", attention="sdpa")
    adapted = load_adapter(model, adapter)
    if adapted.unmergeable is not None:
        raise UserError(f"{adapter}: {adapted.unmergeable}", fix="answer with r1core generate")
    merged = adapted.merged().to(dtype)  # type: ignore[arg-type]  # transformers' stub takes a model here
    name = str(dtype).removeprefix("torch.")
    stated = {"base": base.name, "base_fingerprint": base.fingerprint, "dtype": name, "adapter": sha256_tree(adapter)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with directory_replaced(out) as aside:
        merged.save_pretrained(str(aside))
        tokenizer.save_pretrained(str(aside))
        write_json(aside / MARK, stated)
    return name


def _stored(base: BaseModel) -> torch.dtype:
    """The dtype that the base's configuration states; fp32 where it states none."""
    config = AutoConfig.from_pretrained(
        base.directory(), revision=base.revision, local_files_only=offline(base.directory(), base.revision)
    )
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
