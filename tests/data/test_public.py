"""Public texts as prompts, by the recipe's own template."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1core.api import UserError
from r1core.data.public import PublicTexts
from r1core.recipe.schema import Data


def test_each_line_is_a_prompt_without_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("Gout\n\n  Asthma {text}\n", encoding="utf-8")
    data = Data(source="ward/records", prompt="Who treats {text}?", system="Be brief.")
    found = list(PublicTexts(path, data).read("train"))
    said = [[(message.role, message.content) for message in one.messages] for one in found]
    assert said == [
        [("system", "Be brief."), ("user", "Who treats Gout?")],
        [("system", "Be brief."), ("user", "Who treats Asthma {text}?")],
    ]
    assert all(one.without_answer().messages == one.messages for one in found)


def test_the_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("Gout\n", encoding="utf-8")
    before = PublicTexts(path, Data(source="ward/records")).fingerprint()
    path.write_text("Asthma\n", encoding="utf-8")
    assert PublicTexts(path, Data(source="ward/records")).fingerprint() != before


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\xfa"])
def test_a_file_without_texts_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "terms.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"terms\.txt"):
        PublicTexts(path, Data(source="ward/records"))
