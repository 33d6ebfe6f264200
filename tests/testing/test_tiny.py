from __future__ import annotations

from pathlib import Path

import pytest

from r1core.testing.tiny import SENTENCES, tiny_model, tiny_model_dir, tiny_tokenizer


@pytest.mark.parametrize("text", [*SENTENCES, "", " \t\n", "😀 e\u0301 \u200b \x00", "<|im_end|>"])
def test_every_text_round_trips(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_marks_turns() -> None:
    shown = tiny_tokenizer().apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert shown == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_the_directory_is_a_hugging_face_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    state = torch.get_rng_state()
    folder = tiny_model_dir(tmp_path / "m", seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Cardiology", return_tensors="pt")["input_ids"]
    assert torch.equal(model(ids).logits, tiny_model(seed=5)(ids).logits)
    assert not torch.equal(model(ids).logits, tiny_model(seed=6)(ids).logits)
