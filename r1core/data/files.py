"""The user's own CSV, JSONL or Parquet files as a data set. A bad row is set aside with its line and reason.

Not covered: nested answers, several answers a record, streaming from object stores.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from r1core.api import Example, Message, Task, UserError
from r1core.data.images import files_digest, unreadable
from r1core.data.own_tasks import OwnTasks
from r1core.data.thinking import CLOSE, OPEN
from r1core.recipe.schema import Data

Split = Literal["train", "val", "test"]
SPLIT_SHARES = (("train", 0.75), ("val", 0.10), ("test", 0.15))
"""Shares by which a lone training file is split, by a hash of each row's group, or else of its text."""

COLUMN_ROWS = 100
"""Readable rows that tell which columns a file has (JSON rows may leave some out)."""


OTHER_SEPARATORS = (";", "\t", "|")
"""What separates the columns of files that are called CSV all the same."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used: where it stood, why, and its raw text (which stays in the run directory)."""

    file: str
    line: int
    reason: str
    raw: str


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | Rejected]]:
    """Yield `(line number, row)` of one file, or the reason for which that row cannot be read.

    Raises
    ------
    UserError : for a missing file, an unknown ending, an empty file.
    """
    if not path.is_file():
        said = "a folder, expected a file" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {said}", fix="set data.files to CSV, JSONL or Parquet files")
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: ending {path.suffix!r} is not one of {', '.join(readers)}", fix="convert the file")
    if not path.stat().st_size:
        raise UserError(f"{path}: an empty file", fix="give a file with records")
    return reader(path)


def _text_lines(path: Path) -> Iterator[tuple[int, str | Rejected]]:
    with path.open("rb") as raw_lines:
        for number, raw in enumerate(raw_lines, 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                reason = f"bad UTF-8 at byte {error.start}: {error.reason}"
                yield number, Rejected(str(path), number, reason, raw.decode("utf-8", "replace").rstrip("\n"))


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | Rejected]]:
    for number, line in _text_lines(path):
        if number == 1 and isinstance(line, str) and line.lstrip().startswith("["):
            _refuse_array(path)
        if isinstance(line, Rejected):
            yield number, line
        elif line.strip():
            yield number, _json_row(path, number, line)


def _refuse_array(path: Path) -> None:
    """Refuse a file that is one JSON array of objects; one line that is an array is a bad row like any other."""
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
        fix = f"jq -c '.[]' {path.name} > {path.stem}-lines.jsonl"
        raise UserError(f"{path}: one JSON array, expected an object a line", fix=fix)


def _json_row(path: Path, number: int, line: str) -> Mapping[str, Any] | Rejected:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Rejected(str(path), number, f"broken JSON at column {error.colno}: {error.msg}", line.rstrip("\n"))
    except (ValueError, RecursionError) as error:
        return Rejected(str(path), number, f"JSON that cannot be read: {error}", line.rstrip("\n"))
    if not isinstance(row, dict):
        return Rejected(str(path), number, f"expected a JSON object, found {type(row).__name__}", line.rstrip("\n"))
    if "\\ud" in line.lower() and not _encodes(row):
        return Rejected(str(path), number, "half of a surrogate pair, which is no text", line.rstrip("\n"))
    return row


def _encodes(row: Mapping[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | Rejected]]:
    good: list[str] = []
    bad: list[tuple[int, Rejected]] = []
    for number, line in _text_lines(path):
        if isinstance(line, Rejected):
            if number == 1:
                raise UserError(f"{path}:1: {line.reason}, in the header", fix="save the file as UTF-8")
            bad.append((number, line))
            good.append("\n")  # keeps later line numbers true
        else:
            good.append(line)
    yield from bad
    reader = csv.DictReader(io.StringIO("".join(good), newline=""))
    try:
        _refuse_separator(path, list(reader.fieldnames or ()))
        for row in reader:
            if None in row or None in row.values():
                found = len([v for v in row.values() if v is not None]) + len(row.get(None, [])) - (None in row)
                reason = f"expected {len(reader.fieldnames or ())} columns, found {found}"
                yield reader.line_num, Rejected(str(path), reader.line_num, reason, json.dumps(row, default=str))
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV: {error}", fix="mend the line, or use JSONL") from error


def _refuse_separator(path: Path, header: list[str]) -> None:
    other = next((mark for mark in OTHER_SEPARATORS if len(header) == 1 and mark in header[0]), "")
    if other:
        called = "a tab" if other == "\t" else f"`{other}`"
        said = f"{path}: the file is separated by {called}, expected commas"
        raise UserError(said, fix="save it with commas, or as JSONL")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | Rejected]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow", fix="pip install 'pyarrow<26'") from error
    number = 0
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors derive from these
        raise UserError(f"{path}: not Parquet: {error}", fix="write the file again, or use JSONL") from error
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield number, row


class FileSource:
    """A `DatasetSource` over the recipe's `[data.files]` and `[data.columns]`."""

    name = "files"

    def __init__(self, data: Data) -> None:
        if data.files is None:
            raise ValueError("no [data.files] in this recipe")
        self._data, self._own = data, OwnTasks(data)
        self._paths: dict[Split, Path | None] = {
            "train": data.files.train, "val": data.files.val, "test": data.files.test
        }  # fmt: skip
        self.rejected: list[Rejected] = []

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of one's own files; a label set is the recipe's, or every answer seen in train."""
        return self._own.described(self._examples("train"))

    def read(self, split: Split) -> Iterator[Example]:
        """Yield the split's examples; rows that cannot be used go to `self.rejected`."""
        self.rejected = []
        choices = {name: frozenset(task.choices) for name, task in self.tasks.items()}
        for example in self._examples(split, collect=True):
            if reason := _misfit(example, choices):
                file, _, line = example.source.rpartition(":")
                self.rejected.append(Rejected(file, int(line), reason, example.fields["text"]))
            else:
                yield example

    def fingerprint(self) -> str:
        """sha256 over the bytes of the files, and of the images that they name."""
        digest = hashlib.sha256()
        for path in self._paths.values():
            if path is not None and path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        if self._data.columns.images:
            every = [image for split in self._paths for one in self._examples(split) for image in one.images]
            digest.update(files_digest(every).encode())
        return digest.hexdigest()

    def input_files(self) -> tuple[Path, ...]:
        """The files, for the manifest."""
        return tuple(dict.fromkeys(path for path in self._paths.values() if path is not None))

    def columns_missing(self) -> list[tuple[str, str]]:
        """`(key of data.columns, what is wrong)` for each column that none of a file's first readable rows has.

        Raises
        ------
        UserError : when a file is missing, of an unknown kind, or holds no record.
        """
        wanted = {key: name for key, name in self._data.columns.model_dump().items() if name is not None}
        missing = []
        for path in dict.fromkeys(path for path in self._paths.values() if path is not None):
            readable = (row for _, row in read_rows(path) if not isinstance(row, Rejected))
            first = list(itertools.islice(readable, COLUMN_ROWS))
            if not first:
                raise UserError(f"{path}: no readable record", fix="give a file with a header and records, or mend it")
            found = {str(name): None for row in first for name in row}
            for key, name in wanted.items():
                if name not in found:
                    missing.append((key, f"{path} has no column {name!r}, only {', '.join(found)}"))
        return missing

    def _examples(self, split: Split, collect: bool = False) -> Iterator[Example]:
        own = self._paths[split]
        path = own or self._paths["train"]
        assert path is not None
        for number, row in read_rows(path):
            made = row if isinstance(row, Rejected) else self._example(path, number, row)
            if isinstance(made, Rejected):
                if collect and own is not None:
                    self.rejected.append(made)
            elif self._belongs(made, split):
                yield made

    def _belongs(self, example: Example, split: Split) -> bool:
        """Whether a row of the file that serves this split is this split's."""
        shared = [name for name, _ in SPLIT_SHARES if name == "train" or self._paths[name] is None]  # type: ignore[index]
        if split not in shared or len(shared) == 1:
            return True
        key = example.group or example.fields["text"]
        point = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:8], "big") / 2**64
        total = sum(share for name, share in SPLIT_SHARES if name in shared)
        for name, share in SPLIT_SHARES:
            if name in shared:
                point -= share / total
                if point < 0:
                    return name == split
        return shared[-1] == split

    def _example(self, path: Path, number: int, row: Mapping[str, Any]) -> Example | Rejected:
        columns = self._data.columns
        text, answer = row.get(columns.text), row.get(columns.answer)
        for name, value in ((columns.text, text), (columns.answer, answer)):
            if not isinstance(value, str) or not value.strip():
                found = "nothing" if value is None or value == "" else f"{type(value).__name__} {value!r}"
                return Rejected(str(path), number, f"column {name!r}: expected text, found {found}", _raw(row))
        assert isinstance(text, str)
        assert isinstance(answer, str)
        facts = row.get(columns.facts) if columns.facts else None
        if isinstance(facts, str):
            try:
                facts = json.loads(facts) if facts.strip() else None
            except (ValueError, RecursionError) as error:
                return Rejected(str(path), number, f"column {columns.facts!r}: broken JSON: {error}", _raw(row))
        if not (facts is None or (isinstance(facts, dict) and _is_json(facts))):
            reason = f"column {columns.facts!r}: expected a JSON object, found {type(facts).__name__}"
            return Rejected(str(path), number, reason, _raw(row))
        if not (task := self._own.name_of(row)):
            reason = f"column {columns.task!r}: expected the name of a task, found nothing"
            return Rejected(str(path), number, reason, _raw(row))
        images = self._images(path, row)
        if isinstance(images, str):
            return Rejected(str(path), number, f"column {columns.images!r}: {images}", _raw(row))
        group = _optional(row, columns.group)
        fields = {str(k): v for k, v in row.items() if _is_json(v) and k != columns.reasoning}
        fields |= {"label": answer.strip(), "text": text}
        fields["cluster"] = _optional(row, columns.cluster) or group
        return Example(
            id=_optional(row, columns.id) or f"{path.name}:{number}",
            messages=(
                *self._own.asked(task, text),
                Message("assistant", _behind(row, columns.reasoning) + answer.strip()),
            ),
            task=task,
            source=f"{path}:{number}",
            group=group,
            as_of=_optional(row, columns.as_of),
            facts=facts,
            fields=fields,
            images=images,
        )

    def _images(self, path: Path, row: Mapping[str, Any]) -> tuple[str, ...] | str:
        """A row's images, relative ones beside the data file; or what is wrong with them."""
        given = row.get(self._data.columns.images) if self._data.columns.images else None
        named = given if isinstance(given, list) else [] if given in (None, "") else [given]
        if not all(isinstance(one, str) and one for one in named):
            return f"expected a path, or a list of paths, found {type(given).__name__}"
        found = [str(path.absolute().parent / one) for one in named]
        return next((said for one in found if (said := unreadable(one))), "") or tuple(found)


def _misfit(example: Example, choices: Mapping[str, frozenset[str]]) -> str:
    """Why a readable record cannot be used, or ""."""
    if example.task not in choices:
        return f"task {example.task!r} has no record in train, only {', '.join(sorted(choices))} have"
    labels = choices[example.task]
    if not labels or example.fields["label"] in labels:
        return ""
    shown = ", ".join(sorted(labels)[:5])
    return f"answer {example.fields['label']!r} is not one of the label set ({shown}, ...)"


def _behind(row: Mapping[str, Any], column: str | None) -> str:
    """The reasoning that a record has before its answer, as a block."""
    reasoning = (_optional(row, column) or "").strip()
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n" if reasoning else ""


def _optional(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column else None
    return None if value is None or value == "" else str(value)


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _raw(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)
