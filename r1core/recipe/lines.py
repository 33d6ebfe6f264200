"""Where each key of a TOML document stands: `{dotted key: line}`, lines counted from 1.

The document is read by `tomllib` first; this scanner is run on valid text only and therefore checks nothing.
Elements of arrays are keyed by their index: `tasks.0.name`.
"""

from __future__ import annotations

import re
import tomllib

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r"\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def index(text: str) -> dict[str, int]:
    """Line of every table, key and array element of a valid TOML document."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self.lines: dict[str, int] = {}
        self._array_tables: dict[str, int] = {}  # dotted path of an array of tables -> index of its last table
        self._line, self._counted = 1, 0

    def document(self) -> None:
        prefix: tuple[str, ...] = ()
        self.blank()
        while self.position < len(self.text):
            if self.text[self.position] == "[":
                prefix = self.header()
            else:
                self.pair(prefix)
            self.blank()

    def header(self) -> tuple[str, ...]:
        line, depth = self.line(), 2 if self.text.startswith("[[", self.position) else 1
        self.position += depth
        parts = self.key()
        self.blank()
        self.position += depth
        path: tuple[str, ...] = ()
        for number, part in enumerate(parts):
            path = (*path, part)
            dotted = ".".join(path)
            if number == len(parts) - 1 and depth == 2:
                self._array_tables[dotted] = self._array_tables.get(dotted, -1) + 1
                self.lines.setdefault(dotted, line)
            elif number == len(parts) - 1:
                self.lines[dotted] = line  # the table's own header tells more than a sub-table seen before it
            else:
                self.lines.setdefault(dotted, line)
            if dotted in self._array_tables:
                path = (*path, str(self._array_tables[dotted]))
                self.lines.setdefault(".".join(path), line)
        return path

    def pair(self, prefix: tuple[str, ...]) -> None:
        line = self.line()
        path = prefix
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(".".join(path), line)
        self.position += 1  # the equals sign, which `key` stopped at
        self.value(path)

    def key(self) -> list[str]:
        """Read a dotted key and stop at what follows it."""
        parts = []
        while True:
            self.blank()
            if quoted := _STRING.match(self.text, self.position):
                parts.append(str(tomllib.loads(f"k = {quoted[0]}")["k"]))
                self.position = quoted.end()
            elif bare := _BARE.match(self.text, self.position):
                parts.append(bare[0])
                self.position = bare.end()
            self.blank()
            if not self.text.startswith(".", self.position):
                return parts
            self.position += 1

    def value(self, path: tuple[str, ...]) -> None:
        self.blank()
        if self.text.startswith("[", self.position):
            self.array(path)
        elif self.text.startswith("{", self.position):
            self.inline(path)
        elif token := _STRING.match(self.text, self.position) or _SCALAR.match(self.text, self.position):
            self.position = token.end()

    def array(self, path: tuple[str, ...]) -> None:
        self.position += 1
        number = 0
        while not self.closed("]"):
            self.lines.setdefault(".".join((*path, str(number))), self.line())
            self.value((*path, str(number)))
            number += 1

    def inline(self, path: tuple[str, ...]) -> None:
        self.position += 1
        while not self.closed("}"):
            self.pair(path)

    def closed(self, bracket: str) -> bool:
        """Step over blanks and a comma; true once the closing bracket was stepped over."""
        self.blank()
        if self.text.startswith(",", self.position):
            self.position += 1
            self.blank()
        if self.text.startswith(bracket, self.position) or self.position >= len(self.text):
            self.position += 1
            return True
        return False

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.position)
        self.position = match.end() if match else self.position

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line
