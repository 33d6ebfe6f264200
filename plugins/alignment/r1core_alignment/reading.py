"""Reads facts: the SEC's companyfacts JSON, and CSV of tidy rows; both plain or compressed with gzip.

Not covered: XBRL instances, and downloading; what companyfacts leaves out (facts with dimensions, custom concepts) is
not there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import pandas as pd

from r1core.api import JSON, UserError
from r1core_alignment.facts import COLUMNS, Facts, cik_name
from r1core_alignment.tidy import from_frame

_DOWNLOAD = "give a file of https://data.sec.gov/api/xbrl/companyfacts/, as it is"
_NEEDED = ("val", "end", "filed", "accn", "form")


def read(path: str | Path) -> Facts:
    """Facts of a file: `.csv` and `.csv.gz` are tidy rows, `.json` and `.json.gz` companyfacts."""
    name = Path(path).name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        return read_csv(path)
    if name.endswith(".json"):
        return read_companyfacts(path)
    raise UserError(f"{path}: found neither .json nor .csv (.gz)", fix="name it by what it holds")


def read_companyfacts(source: str | Path | Mapping[str, JSON], *, entity: str | None = None) -> Facts:
    """Facts of one company, from the JSON that the SEC publishes; numbers are taken as they are written.

    Concepts carry their taxonomy: `us-gaap:Assets`. `fy`, `fp` and `frame` are not read.

    Parameters
    ----------
    source : a file, or the object in it. entity : its name; None = `CIK` and the ten digits.

    Raises
    ------
    UserError : for what is no companyfacts JSON, naming the fact.
    """
    if isinstance(source, Mapping):
        told, content = "companyfacts", source
    else:
        told, content = str(source), _json(Path(source))
    if not isinstance(content, Mapping) or not isinstance(content.get("facts"), Mapping):
        raise UserError(f"{told}: no object with the key 'facts'", fix=_DOWNLOAD)
    name = entity if entity is not None else _cik(told, content.get("cik"))
    places: list[str] = []
    rows: list[tuple[JSON, ...]] = []
    for place, concept, unit, fact in _facts(told, content["facts"]):
        places.append(place)
        value, end, filed, accession, form = (fact[key] for key in _NEEDED)
        rows.append((name, concept, unit, value, fact.get("start"), end, filed, accession, form))
    if not rows:
        raise UserError(f"{told}: there are no facts in it", fix=_DOWNLOAD)
    # objects, so that a whole number stays an int of any length
    return from_frame(pd.DataFrame(rows, columns=COLUMNS, dtype=object), where=places.__getitem__)


def read_csv(path: str | Path) -> Facts:
    """Facts of a CSV with a header: entity, concept, unit, value, start, end, filed, accession, form.

    Values are taken as they are written; `start` is empty for an instant. `val` and `accn` are understood.

    Raises
    ------
    UserError : for what `from_frame` refuses, naming the row of the file.
    """
    try:
        frame = pd.read_csv(path, dtype=object, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (OSError, ValueError, zlib.error, EOFError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: no readable CSV ({error})", fix=f"write columns {', '.join(COLUMNS)}") from error
    return from_frame(frame, where=lambda position: f"{path}: row {position + 2}")


def _facts(told: str, taxonomies: Mapping[str, JSON]) -> Iterator[tuple[str, str, str, Mapping[str, JSON]]]:
    """Place, concept, unit and entry of every fact."""
    for taxonomy, concepts in taxonomies.items():
        for tag, held in _object(f"{told}: facts/{taxonomy}", concepts).items():
            place = f"{told}: {taxonomy}/{tag}"
            for unit, entries in _object(f"{place}/units", _object(place, held).get("units")).items():
                if not isinstance(entries, list):
                    raise UserError(f"{place}/{unit}: found no list of facts", fix=_DOWNLOAD)
                for number, fact in enumerate(entries):
                    at = f"{place}/{unit}[{number}]"
                    absent = [key for key in _NEEDED if key not in _object(at, fact)]
                    if absent:
                        raise UserError(f"{at}: the fact has no {', '.join(map(repr, absent))}", fix=_DOWNLOAD)
                    yield at, f"{taxonomy}:{tag}", unit, fact


def _object(place: str, value: JSON) -> Mapping[str, JSON]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: found {type(value).__name__}, expected a JSON object", fix=_DOWNLOAD)
    return value


def _cik(told: str, cik: JSON) -> str:
    if isinstance(cik, bool) or not str(cik).isdecimal():
        raise UserError(f"{told}: 'cik' is {cik!r}, expected its digits", fix="read_companyfacts(..., entity=NAME)")
    return cik_name(cik)


def _json(path: Path) -> JSON:
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        return json.loads(text, parse_float=Decimal)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: no readable JSON ({error})", fix=_DOWNLOAD) from error
