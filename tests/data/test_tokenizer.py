"""The tokenizer's file alone against what transformers makes of the whole directory, and when it is not asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from r1core.api import Example, Message, Span, SpanKind, UserError
from r1core.data.tokenizer import FAMILIES, StoredTokenizer, stored_tokenizer, tokenizer_at
from r1core.data.tokens import Renderer
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_model_dir

KINDS = {"t/k": SpanKind("t/k", encode=str, decode=str, width=1, feature=lambda value: (float(len(value)),))}
TEXTS = st.text() | st.lists(
    st.sampled_from(["<|im_end|>", "<|endoftext|>", " ", "\n", "pain", "Schmerz ", "é", "患者", "\u200b", "12.5"])
).map("".join)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_dir(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def pair(tiny: Path) -> tuple[StoredTokenizer, Any]:
    """The file alone, and transformers' own."""
    alone = stored_tokenizer(str(tiny))
    assert alone is not None
    return alone, AutoTokenizer.from_pretrained(str(tiny))


@given(text=TEXTS)
def test_the_file_alone_gives_the_same_ids_places_and_texts(pair: tuple[StoredTokenizer, Any], text: str) -> None:
    alone, whole = pair
    asked: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True}
    ids = alone(text, **asked)["input_ids"]
    assert alone(text, **asked) == {k: whole(text, **asked)[k] for k in ("input_ids", "offset_mapping")}
    assert set(alone(text, add_special_tokens=False)) == {"input_ids"}
    for skip in (False, True):
        asked = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
        assert alone.decode(ids, **asked) == whole.decode(ids, **asked)


def test_rows_and_vocabulary_come_out_alike(pair: tuple[StoredTokenizer, Any]) -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "Which team: chest pain?"),
        Message("assistant", "heart"),
    )
    example = Example("1", messages, "t", spans=(Span(1, 12, 22, "t/k", "pain"),))
    rows = [Renderer(one, KINDS, template="plain").encode(example) for one in pair]
    assert rows[0] == rows[1]
    assert rows[0].slots
    first, second = (Vocabulary.from_tokenizer(one) for one in pair)
    assert first.token_bytes == second.token_bytes
    assert (first.eos_ids, first.special_ids, first.never_ids) == (second.eos_ids, second.special_ids, second.never_ids)


def changed(tiny: Path, to: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the directory in which one JSON file is another."""
    to.mkdir()
    for path in tiny.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    content = json.loads((to / file).read_text()) if (to / file).exists() else {}
    change(content)
    (to / file).write_text(json.dumps(content))
    return to


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_transformers_takes_the_file_as_it_is_for_these_families(family: str, tiny: Path, tmp_path: Path) -> None:
    folder = changed(tiny, tmp_path / family, "config.json", lambda config: config.update(model_type=family))
    assert type(AutoTokenizer.from_pretrained(str(folder))) is PreTrainedTokenizerFast
    assert type(tokenizer_at(str(folder))) is PreTrainedTokenizerFast
    assert stored_tokenizer(str(folder)) is not None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", lambda c: c.update(tokenizer_class="LlamaTokenizer")),
        ("tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["own.Tokenizer", None]})),
        ("tokenizer_config.json", lambda c: c.update(add_bos_token=True)),
        ("tokenizer_config.json", lambda c: c.update(additional_special_tokens=["pain"])),
        ("tokenizer_config.json", lambda c: c.update(eos_token="pain")),
        ("tokenizer_config.json", lambda c: c.update(pad_token={"__type": "AddedToken", "content": "<|endoftext|>"})),
        ("tokenizer_config.json", lambda c: c.pop("eos_token")),
        ("config.json", lambda c: c.update(model_type="qwen2")),
        ("tokenizer.json", lambda c: c["added_tokens"][2].update(lstrip=True)),
        ("tokenizer.json", lambda c: c.pop("model")),
        ("special_tokens_map.json", lambda c: c.update(eos_token="<|im_end|>")),
    ],
    ids=["class", "code", "unknown key", "more tokens", "a common word", "flags", "no end", "family", "strip", "broken",
         "another file"],
)  # fmt: skip
def test_what_transformers_might_change_is_left_to_it(
    file: str, change: Callable[[dict[str, Any]], Any], tiny: Path, tmp_path: Path
) -> None:
    assert stored_tokenizer(str(changed(tiny, tmp_path / "copy", file, change))) is None


def test_a_hub_id_is_left_to_transformers() -> None:
    assert stored_tokenizer("nobody/nothing") is None


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer_config.json", lambda c: c.pop("eos_token"), "names no eos_token"),
        ("tokenizer.json", lambda c: c.pop("model"), "no tokenizer: "),
    ],
    ids=["no end", "broken"],
)
def test_a_tokenizer_that_cannot_serve_is_refused(
    file: str, change: Callable[[dict[str, Any]], Any], said: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        tokenizer_at(str(changed(tiny, tmp_path / "copy", file, change)))


def test_a_class_of_its_own_is_loaded_as_transformers_does(tiny: Path, tmp_path: Path) -> None:
    folder = changed(
        tiny, tmp_path / "copy", "tokenizer_config.json", lambda c: c.update(tokenizer_class="NobodysTokenizer")
    )
    assert tokenizer_at(str(folder)).eos_token == "<|im_end|>"


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="no tokenizer"):
        tokenizer_at(str(tmp_path))
