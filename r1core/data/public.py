"""Texts that anyone may read, as a data set of prompts: what is measured on them tells nothing about a private row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from r1core.api import Example, Task, UserError
from r1core.data.own_tasks import LONE, OwnTasks
from r1core.recipe.schema import Data


class PublicTexts:
    """A UTF-8 file of texts, one a line, each put into `data.prompt` as the text of a record is; answers it has none.

    Raises
    ------
    UserError : for a file that cannot be read, or holds no text.
    """

    name = "adapter.public_texts"
    tasks: Mapping[str, Task] = {}

    def __init__(self, path: Path, data: Data) -> None:
        self._path, self._own = path, OwnTasks(data)
        try:
            self._bytes = path.read_bytes()
            lines = self._bytes.decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"adapter.public_texts: {path}: {error}", fix="name a UTF-8 file of texts") from error
        self._texts = [line.strip() for line in lines if line.strip()]
        if not self._texts:
            raise UserError(f"adapter.public_texts: {path} holds no text", fix="one text a line")

    def read(self, split: Literal["train", "val", "test"]) -> Iterator[Example]:
        """All of them as prompts, in every split."""
        for number, text in enumerate(self._texts, 1):
            asked = self._own.asked(LONE, text)
            yield Example(id=f"{self._path.name}:{number}", messages=asked, task=LONE, source=self.name)

    def input_files(self) -> tuple[Path, ...]:
        """The file, for the manifest."""
        return (self._path,)

    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes."""
        return hashlib.sha256(self._bytes).hexdigest()
