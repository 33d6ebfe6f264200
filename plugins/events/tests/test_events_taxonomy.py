"""The taxonomy that ships keeps what is promised, and a broken file is refused with one clear line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from r1core_events.taxonomy import load, read_group
from r1core_events.values import listed

from r1core.api import UserError

ITEMS_8K = set(
    listed(
        "1.01 1.02 1.03 1.04 1.05 2.01 2.02 2.03 2.04 2.05 2.06 3.01 3.02 3.03 4.01 4.02 5.01 5.02 5.03 5.04 "
        "5.05 5.06 5.07 "
        "5.08 6.01 6.02 6.03 6.04 6.05 7.01 8.01 9.01"
    )
)
CAEV_CODES = set(
    listed(
        "ACTV ATTI BIDS BMET BONU BPUT BRUP CAPD CAPG CAPI CERT CHAN CLSA CONS CONV COOP CREV DECR DETI DFLT "
        "DLST DRAW DRCA "
        "DRIP DSCL DTCH DVCA DVOP DVSC DVSE EXOF EXRI EXTM EXWA INCR INTR LIQU MCAL MEET MRGR NOOF ODLT OTHR "
        "PARI PCAL PDEF "
        "PINK PLAC PPMT PRED PRII PRIO REDM REDO REMK RHDI RHTS SHPR SMAL SOFF SPLF SPLR SUSP TEND TNDP TREC WRTH WTRC "
        "XMET"
    )
)
FIBO_CLASSES = Path(__file__).with_name("fibo_2026q2.txt")
TOO_GENERAL = {  # true of so many types that they tell none from another
    *("Action", "CorporateAction", "MandatoryCorporateAction", "MandatoryWithChoiceCorporateAction"),
    *("VoluntaryCorporateAction", "MarketAction", "RegulatoryAction", "Notification", "LegalProceeding", "CreditEvent"),
    *("EntitySpecificCreditEvent", "ObligationSpecificCreditEvent", "SecuritiesOffering", "SecuritiesIssuanceProcess"),
}
README = Path(__file__).parent.parent / "README.md"
GROUP = """\
[group]
id = "weather"
title = "Weather"
definition = "What the weather does to a company."

[[type]]
id = "frost"
title = "Frost damage to crops"
definition = "Frost has destroyed crops."
direction = "negative"
sec_8k = ["8.01"]
fibo = []
iso15022 = []
triggers = ["frost destroyed"]
examples = ["Frost destroyed the vines of Quillmere Foods."]
train = ["Frost destroyed crops of {company} in {place}."]
dev = ["A late frost cost {company} much of its crop."]
test = ["Cold nights ruined the orchards of {company}."]
"""


def test_has_two_hundred_types_with_three_sentences_each() -> None:
    types = load().types
    assert len(types) >= 200
    assert len({kind.id for kind in types}) == len(types)
    for kind in types:
        assert len(kind.sentences) >= 3, kind.id
        assert min(len(kind.train) // 2, len(kind.dev) * 2, len(kind.test), len(kind.examples)) >= 2, kind.id


def test_crosswalks_name_real_items_and_codes() -> None:
    for kind in load().types:
        assert set(kind.sec_8k) <= ITEMS_8K, kind.id
        assert set(kind.iso15022) <= CAEV_CODES, kind.id
        assert kind.direction in ("positive", "negative", "mixed", "neutral")


def test_crosswalks_name_real_and_telling_classes_of_fibo() -> None:
    lines = FIBO_CLASSES.read_text(encoding="utf-8").splitlines()
    classes = {line for line in lines if line and "/" not in line and not line.startswith("#")}
    assert classes >= TOO_GENERAL
    for kind in load().types:
        assert set(kind.fibo) <= classes - TOO_GENERAL, kind.id


@pytest.mark.parametrize("key", ["sec_8k", "fibo", "iso15022"])
def test_no_crosswalk_names_a_thing_twice(key: str) -> None:
    for kind in load().types:
        assert len(set(getattr(kind, key))) == len(getattr(kind, key)), kind.id


def test_the_readme_tells_how_far_crosswalks_reach() -> None:
    types, text = load().types, README.read_text(encoding="utf-8")
    for row, key in (
        ("items of Form 8-K", "sec_8k"),
        ("FIBO, release 2026Q2", "fibo"),
        ("ISO 15022 (CAEV)", "iso15022"),
    ):
        entries = [getattr(kind, key) for kind in types if getattr(kind, key)]
        assert f"| {row} | {len(entries)} | {len({one for each in entries for one in each})} |" in text
    assert f"The other {sum(not kind.fibo for kind in types)} types have no counterpart in FIBO" in text
    assert f"names stand in {len({k.group for k in types if k.fibo})} of the {len(load().groups)} groups" in text
    assert f"{sum(not (k.sec_8k or k.fibo or k.iso15022) for k in types)} types have no entry at all" in text


def test_no_template_stands_in_two_splits_or_two_types() -> None:
    seen: dict[str, str] = {}
    for kind in load().types:
        for split in ("train", "dev", "test", "sentences"):
            for text in getattr(kind, split):
                skeleton = re.sub(r"\W+", " ", text).strip().lower()
                assert skeleton not in seen, f"{kind.id} {split} and {seen[skeleton]}: {text}"
                seen[skeleton] = f"{kind.id} {split}"


def test_hand_written_sentences_have_no_slots() -> None:
    for kind in load().types:
        assert not any("{" in text for text in (*kind.sentences, *kind.examples)), kind.id


def test_users_can_add_a_group(tmp_path: Path) -> None:
    (tmp_path / "weather.toml").write_text(GROUP)
    assert load(tmp_path).find("frost").group == "weather"
    assert len(load(tmp_path).types) == len(load().types) + 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('direction = "negative"', 'direction = "bad"', "direction"),
        ('sec_8k = ["8.01"]', 'sec_8k = ["8.99"]', "8.99"),
        ("iso15022 = []", 'iso15022 = ["FROZ"]', "FROZ"),
        ('triggers = ["frost destroyed"]', "triggers = []", "triggers"),
        ('["frost destroyed"]', '["Frost destroyed"]', "lower case"),
        ("{place}", "{town}", "town"),
        ('id = "frost"', 'id = "Frost Damage"', "kebab"),
        ('title = "Frost damage to crops"\n', "", "title"),
        ("[[type]]", "[[kind]]", "[[type]]"),
        ("fibo = []", "fibo = [", "TOML"),
        ("A late frost cost {company} much of its crop.", "Cold nights ruined the orchards of {company}.", "dev"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, old: str, new: str, told: str) -> None:
    file = tmp_path / "weather.toml"
    assert old in GROUP
    file.write_text(GROUP.replace(old, new))
    with pytest.raises(UserError) as error:
        read_group(file)
    assert "weather.toml" in str(error.value)
    assert told in f"{error.value} {error.value.fix}"


def test_a_group_that_is_there_already_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no taxonomy file"):
        load(tmp_path)
    (tmp_path / "x.toml").write_text(GROUP.replace('id = "weather"', 'id = "mergers"'))
    with pytest.raises(UserError, match="there already"):
        load(tmp_path)


def test_ids_can_be_shortened_where_one_type_ends_so() -> None:
    assert load().find("merger-agreement").id == "mergers/merger-agreement"
    with pytest.raises(UserError, match="no event type"):
        load().find("no-such-type")
