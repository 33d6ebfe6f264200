"""`r1core models upcycle`, and a run on what it makes."""

from __future__ import annotations

import json

from .conftest import RECIPE, Desk


def test_a_dense_model_becomes_an_r1_that_can_be_adapted_and_asked(desk: Desk) -> None:
    words = (
        "models",
        "upcycle",
        "tiny",
        "--to",
        "R1",
        "--out",
        "moe",
        "--experts",
        "8",
        "--groups",
        "4",
        "--width",
        "8",
    )
    made = desk(*words)
    assert "R1 with 8 experts in 4 groups; greatest difference of a logit from the dense model's: 0\n" in made.out
    assert "use it with --set model.path=moe" in made.out
    assert "moe is not empty" in desk(*words, code=2).said
    desk.write("own.toml", RECIPE.replace('path = "tiny"', 'path = "moe"'))
    desk("adapt", "--recipe", "own.toml", "--set", "train.steps=2", "--set", "evaluate.baselines=false")
    assert "artefacts as recorded" in desk("verify", "runs/own").out
    assert desk("generate", "runs/own", "--prompt", "a cough", "--json").json()


def test_steps_that_change_what_it_says_tell_by_how_much(desk: Desk) -> None:
    desk.write("text.txt", "Since yesterday chest pain and cough. " * 30)
    assert "add --text FILE" in desk("models", "upcycle", "tiny", "--to", "R1", "--window", "8", code=2).said
    small = ("--experts", "8", "--groups", "4", "--width", "8")
    out = desk("models", "upcycle", "tiny", "--to", "R1", "--out", "far", "--rope-base", "50000", "--window", "16",
               "--text", "text.txt", *small).out  # fmt: skip
    first, second = (line for line in out.splitlines() if "perplexity on text.txt: " in line)
    assert first.startswith("rotary base 50000: ")
    assert second.startswith("window 16: ")
    assert second.split(": ")[2].split(" before")[0] == first.split("before, ")[1].split(" after")[0]
    config = json.loads((desk.folder / "far/config.json").read_text())
    assert (config["rope_parameters"]["rope_theta"], config["sliding_window"]) == (50_000, 16)
    assert "far is an R1 already" in desk("models", "upcycle", "far", "--to", "R1", "--out", "x", code=2).said
    desk.write("far/generation_config.json", '{"eos_token_id": [2, 5], "do_sample": true, "temperature": 0.3}')
    further = ("--window", "8", "--every", "4", "--positions", "4096", "--text", "text.txt")
    again = desk("models", "upcycle", "far", "--to", "R1", "--out", "near", *further).out
    told = [line.split(": ")[0] for line in again.splitlines() if "perplexity" in line]
    assert told == ["positions 4096", "window 8", "node every 4"]
    near = json.loads((desk.folder / "near/config.json").read_text())
    assert (near["sliding_window"], near["global_every"], near["max_position_embeddings"]) == (8, 4, 4096)
    assert "window 8: perplexity on text.txt: " in again
    assert json.loads((desk.folder / "near/generation_config.json").read_text())["eos_token_id"] == [2, 5]


def test_bad_input_is_one_line(desk: Desk) -> None:
    to = ("--to", "R1", "--out", "moe")
    assert "no model directory" in desk("models", "upcycle", "nothing", *to, code=2).said
    odd = desk("models", "upcycle", "tiny", *to, "--experts", "10", "--groups", "4", code=2).said
    assert "num_experts = 10 do not divide into expert_groups = 4" in odd
    desk.write("text.txt", "a cough " * 30)
    (desk.folder / "latin.txt").write_bytes(b"\xe9t\xe9")
    for words, said in (
        (("--window", "0", "--text", "text.txt"), "0 is not in the range x>=1"),
        (("--rope-base", "0", "--text", "text.txt"), "0.0 is not in the range x>1"),
        (("--rope-base", "nan", "--text", "text.txt"), "rope_theta = nan"),
        (("--text", "text.txt"), "add --rope-base or --window"),
        (("--window", "8", "--text", "latin.txt"), "not UTF-8"),
    ):
        assert said in desk("models", "upcycle", "tiny", *to, *words, code=2).said
    assert not (desk.folder / "moe").exists()
    assert "give another --out" in desk("models", "upcycle", "tiny", "--to", "R1", "--out", "text.txt", code=2).said


def test_its_experts_take_an_adapter_which_merges(desk: Desk) -> None:
    small = ("--experts", "8", "--groups", "4", "--width", "8")
    desk("models", "upcycle", "tiny", "--to", "R1", "--out", "moe", *small)
    desk.write("own.toml", RECIPE.replace('path = "tiny"', 'path = "moe"'))
    where = 'adapter.targets=["q_proj", "experts"]'
    sure = ("--set", "evaluate.baselines=false", "--set", "train.steps=2", "--set", "adapter.dropout=0.1")
    desk("adapt", "--recipe", "own.toml", "--set", where, *sure)
    stated = json.loads((desk.folder / "runs/own/adapter/adapter_config.json").read_text())
    assert stated["target_parameters"]
    asked = ("--prompt", "a cough", "--json")
    answer = desk("generate", "runs/own", *asked).json()
    desk("merge", "runs/own", "--out", "merged")
    merged = json.loads((desk.folder / "merged/config.json").read_text())
    assert merged["model_type"] == "r1"
    assert answer
    wrong = desk("check", "--recipe", "own.toml", "--set", where, "--set", 'adapter.kind="dora"', code=2).said
    assert "'experts' with adapter.kind = \"dora\"" in wrong


def test_a_configuration_that_was_edited_wrongly_is_found_before_weights_are_read(desk: Desk) -> None:
    desk("models", "upcycle", "tiny", "--to", "R1", "--out", "moe", "--experts", "8", "--groups", "4", "--width", "8")
    desk.write("own.toml", RECIPE.replace('path = "tiny"', 'path = "moe"'))
    file = desk.folder / "moe/config.json"
    right = json.loads(file.read_text())
    for wrong, said in (
        ({"num_experts_per_tok": 99}, "num_experts_per_tok = 99 of 8 experts: give 1 to 8"),
        ({"hidden_act": "foo"}, "hidden_act = 'foo'"),
        ({"sliding_window": "8"}, "sliding_window"),
    ):
        file.write_text(json.dumps(right | wrong))
        assert said in desk("check", "--recipe", "own.toml", code=2).said
    assert "sliding_window" in desk("train", "--recipe", "own.toml", code=2).said
