"""Kinds of adapters and the layer-wise table, from the recipe to the answer, and merging, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from .conftest import RECIPE, Desk

STEPS = ("--set", "train.steps=3", "--set", "train.learning_rate=0.05")


def trained(desk: Desk, tables: str, *words: str) -> Path:
    desk.write("own.toml", RECIPE + tables)
    desk("train", "--recipe", "own.toml", *STEPS, *words)
    return desk.folder / "runs" / "own"


def test_a_strategy_is_trained_answers_and_merges(desk: Desk) -> None:
    tables = '\n[adapter]\nkind = "dora"\nrank = 4\n[strategy]\nuntie = true\n[strategy.output]\nmode = "full"\n'
    run = trained(desk, tables)
    stated = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert stated["use_dora"] is True
    assert stated["modules_to_save"] == ["lm_head"]
    answer = desk("generate", "runs/own", "--prompt", "chest pain").out
    done = desk("merge", "runs/own", "--out", "plain")
    assert done.out.endswith("merged model (float32): plain\n")
    assert done.err == ""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (c.from_pretrained(desk.folder / "plain") for c in (AutoModelForCausalLM, AutoTokenizer))
    asked = [{"role": "user", "content": "chest pain"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        given = model.generate(**prompt, max_new_tokens=6, do_sample=False)
    text = tokenizer.decode(given[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert f"{text}\n" == answer
    assert desk("merge", "runs/own").out.endswith("runs/own-merged\n")
    assert "artefacts as recorded" in desk("verify", "runs/own").out
    assert "did not write it" in desk("merge", "runs/own", "--out", "tiny", code=2).err


def test_gelu_lora_is_trained_answers_and_is_not_merged(desk: Desk) -> None:
    run = trained(desk, '\n[adapter]\nkind = "gelu_lora"\nrank = 4\n')
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "r1core_adapter.json", "r1core_adapter.safetensors",
    ]  # fmt: skip
    adapted = desk("generate", "runs/own", "--prompt", "chest pain").out
    assert adapted != desk("generate", "runs/own", "--base", "--prompt", "chest pain").out
    refused = desk("merge", "runs/own", code=2)
    assert 'adapter.kind = "gelu_lora" cannot be merged' in refused.err
    assert not (desk.folder / "runs" / "own-merged").exists()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[strategy]\npreset = "guide"', "strategy.untie = true"),
        ('[adapter]\nkind = "gelu_lora"\n[strategy.norms]\nmode = "full"', "gelu_lora"),
        ('[adapter]\npreset = "text-64"\nrank = 8', "state one of them"),
        ('[adapter]\nkind = "loha"', "'lora', 'rslora', 'dora' or 'gelu_lora'"),
    ],
)
def test_check_says_at_its_line_what_cannot_be(tables: str, said: str, desk: Desk) -> None:
    file = desk.write("own.toml", f"{RECIPE}\n{tables}\n")
    done = desk("check", "--recipe", "own.toml", code=2)
    assert said in done.said
    assert f"{file.name}:" in done.said


def test_merge_refuses_a_run_that_is_not_trained(desk: Desk) -> None:
    assert "not trained yet" in desk("merge", "--recipe", "own.toml", code=2).err
