"""Bad input: exit 2 and one clear line for each problem, before any weight is loaded; bad rows are set aside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import RECIPE, ROOT, Desk

OWN = ("--recipe", "own.toml")


@pytest.fixture
def unloadable(desk: Desk) -> Desk:
    """A desk whose weights are garbage: whoever loads them fails in another way."""
    (desk.folder / "tiny/model.safetensors").write_bytes(b"garbage")
    return desk


def refused(desk: Desk, *words: str | Path) -> list[str]:
    """`adapt` and `check` both exit 2, at once, writing nothing; the lines of the former without their fixes."""
    told = desk("adapt", *words, code=2)
    assert told.out == ""
    assert told.seconds < 8
    assert not (desk.folder / "runs").exists()
    lines = told.err.splitlines()
    assert all(line.startswith(("error: ", "  fix: ")) for line in lines)
    checked = desk("check", *words, code=None)
    assert checked.code == 2
    problems = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    for problem in problems:
        assert problem.partition(" (fix: ")[0] in checked.said
    return lines


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "batch_size = 4",
            "batch_sise = 4",
            ("own.toml:23: unknown key `train.batch_sise`", "did you mean `batch_size`?"),
        ),
        ("batch_size = 4", 'batch_size = "4"', ('own.toml:23: `train.batch_size` is the string "4"', "without quotes")),
        ("[train]", "[trian]", ("own.toml:22: unknown key `trian`", "did you mean `train`?")),
        (
            'path = "tiny"',
            'path = "tiny"\nhub = "x/y"',
            ("exactly one of base, path, hub; found path and hub", "own.toml:5"),
        ),
        ('path = "tiny"', 'path = "elsewhere"', ("elsewhere holds no config.json", "Hugging Face model directory")),
        ('text = "Description"', 'text = "Note"', ("own.toml:17: ", "has no column 'Note', only Description, Clinic")),
        ("[data]", "[data", ("own.toml:10: not TOML", "mend this line")),
        ("max_tokens = 128", "max_tokens = 4000", ("own.toml:11: data.max_tokens = 4000", "the model's context, 512")),
        ('train = "notes.csv"', 'train = "notse.csv"', ("own.toml:13: ", "notse.csv: no such file")),
        ('train = "notes.csv"', 'train = "notes.xls"', ("own.toml:13: ", "no such file")),
    ],
    ids=["unknown key", "type", "table", "two models", "no model", "column", "TOML", "context", "file", "ending"],
)
def test_a_wrong_recipe_names_its_line_and_the_fix(
    old: str, new: str, expected: tuple[str, ...], unloadable: Desk
) -> None:
    unloadable.write("own.toml", RECIPE.replace(old, new))
    lines = refused(unloadable, *OWN)
    assert len(lines) == 2, lines
    for words in expected:
        assert words in "\n".join(lines)


def test_several_problems_come_at_once_in_the_order_of_the_lines(unloadable: Desk) -> None:
    recipe = RECIPE.replace("plugins = []", 'plugins = ["umlz", "nowhere"]')
    recipe = recipe.replace("batch_size = 4", 'batch_size = "x"')
    unloadable.write("own.toml", recipe.replace('answer = "Clinic"', 'answer = "Ward"') + "[reprot]\n")
    lines = refused(unloadable, *OWN)
    assert [line.partition(": ")[2].split(": ")[0] for line in lines] == [
        "own.toml:3", "own.toml:3", "own.toml:18", "own.toml:23", "own.toml:32"
    ]  # fmt: skip
    for fix in ("did you mean 'umls'?", "'nowhere' is not installed", "has no column 'Ward'", "did you mean `report`?"):
        assert fix in "\n".join(lines)
    found = unloadable("check", *OWN, "--json", code=2).json()
    assert [p["where"] for p in found["problems"]] == [line.split(": ")[1] for line in lines]


def test_an_override_is_named_as_such(unloadable: Desk) -> None:
    [line, fix] = refused(unloadable, *OWN, "--set", "train.stpes=5")
    assert line.startswith("error: --set train.stpes: unknown key")
    assert fix == "  fix: did you mean `steps`?"


@pytest.mark.parametrize("content", ["", "Description,Clinic,No,Patient\n"], ids=["no byte", "header only"])
def test_an_empty_data_set(content: str, unloadable: Desk) -> None:
    unloadable.write("notes.csv", content)
    [line, fix] = refused(unloadable, *OWN)
    assert "own.toml:13" in line
    assert "notes.csv: " in line
    assert "empty file" in line or "no readable record" in line
    assert fix.startswith("  fix: give a file")


def test_a_text_longer_than_the_context(unloadable: Desk) -> None:
    long = "pain " * 400
    rows = (unloadable.folder / "notes.csv").read_text().splitlines()
    rows[3] = f"{long},heart,n2,p1"
    unloadable.write("notes.csv", "\n".join(rows) + "\n")
    done = unloadable("adapt", *OWN, code=2)
    [line, fix] = done.err.splitlines()
    assert "notes.csv:4: row 'n2' has" in line
    assert "the limit is 128" in line
    assert "data.max_tokens" in fix


def test_a_domain_that_the_folder_declares_gets_the_pip_line(desk: Desk) -> None:
    folder = desk.folder / "domains/veterinary"
    folder.mkdir(parents=True)
    about = (ROOT / "domains/medical/pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(about.replace("medical", "veterinary"))
    [line, fix] = refused(desk, "veterinary")
    assert "domain 'veterinary' is declared in ./domains/veterinary but not installed" in line
    assert fix == "  fix: pip install ./domains/veterinary"


def test_a_domain_that_nobody_has(desk: Desk) -> None:
    [line, fix] = refused(desk, "medicl")
    assert "domain 'medicl' is not installed" in line
    assert fix == "  fix: did you mean 'medical'?"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "broken",
            ("broken-r1core 0.1.0 does not load: ModuleNotFoundError", "library_that_nobody_has", "--no-plugin broken"),
        ),
        ("future", ("future-r1core 2.0.0 is written for r1core <8,>=7", "pip install --upgrade future-r1core")),
        (
            "acme",
            ("two plugins are named 'acme': acme-r1core 1.2.0 and twin-r1core 0.3.0", "pip uninstall twin-r1core"),
        ),
        ("acmee", ("plugin 'acmee' is not installed", "did you mean 'acme'?")),
        (
            "gadget",
            ("plugin 'gadget' is declared in ./plugins/gadget but not installed", "pip install ./plugins/gadget"),
        ),
    ],
)
def test_a_plugin_that_cannot_be_had(name: str, expected: tuple[str, ...], unloadable: Desk, shelf: Path) -> None:
    unloadable.path = [shelf / "site", shelf / "twin"]
    gadget = unloadable.folder / "plugins/gadget"
    gadget.mkdir(parents=True)
    (gadget / "pyproject.toml").write_text('[project]\nname = "gadget"\n')
    unloadable.write("own.toml", RECIPE.replace("plugins = []", f'plugins = ["{name}"]'))
    lines = refused(unloadable, *OWN)
    assert len(lines) == 2, lines
    assert lines[0].startswith("error: own.toml:3: ")
    for words in expected:
        assert words in "\n".join(lines)


def test_an_unused_broken_plugin_breaks_no_command(desk: Desk, shelf: Path) -> None:
    desk.path = [shelf / "site"]
    assert "future" in desk("plugins").out
    desk("prepare", *OWN, "--trace", "n1")
    for listing in (desk("plugins", "--hook", "reward"), desk("models")):
        assert "passed over: plugin broken: " in listing.err
        assert "passed over: plugin future: " in listing.err
    assert "raising" in desk("plugins", "--hook", "reward").out


def test_a_plugin_that_raises_is_named(unloadable: Desk, shelf: Path) -> None:
    unloadable.path = [shelf / "site"]
    unloadable.write("own.toml", RECIPE.replace("plugins = []", 'plugins = ["raising"]'))
    raised = "plugin 'raising' failed in hook 'metric': RuntimeError: no table"
    place = f"({shelf / 'site' / 'raising_r1core.py'}:44)"
    assert unloadable("prepare", *OWN, code=1).err == f"error: {raised} {place}\n"
    assert raised in unloadable("check", *OWN, code=2).out
    unloadable("prepare", *OWN, "--no-plugin", "raising", "--trace", "n1")


def test_a_plugin_without_a_hook_takes_part_in_nothing(unloadable: Desk) -> None:
    unloadable.write("empty.py", "def preprocess():\n    return []\n")
    [line, fix] = refused(unloadable, *OWN, "--plugin", "empty.py")
    assert "plugin 'empty' of " in line
    assert "implements no hook" in line
    assert fix == "  fix: mark `preprocess` with @api.hookimpl"


def test_a_verb_that_is_no_command_names_its_plugin(desk: Desk) -> None:
    about = desk.folder / "site/odd-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\nRequires-Dist: r1core>=0.1,<0.2\n")
    (about / "entry_points.txt").write_text("[r1core.commands]\nodd = odd_r1core:run\n")
    (desk.folder / "site/odd_r1core.py").write_text("def run():\n    pass\n")
    desk.path = [desk.folder / "site"]
    [line, fix] = desk("odd", code=2).err.splitlines()
    assert line == "error: verb 'odd' of odd 1.0 is of type function, expected a click.Command"
    assert fix == "  fix: mend the entry point in odd_r1core"


def test_nothing_typed_gets_the_help(desk: Desk) -> None:
    done = desk(code=2)
    assert done.err.startswith("Usage: r1core ")
    assert "error" not in done.err


SOUR = """
from r1core import api


class Sour:
    name = "sour/dose"
    after = ()
    before = ()
    span_kinds = ()

    def __call__(self, example):
        raise KeyError("dose")

    def fingerprint(self):
        return "1"


class Plugin(api.Plugin):
    @api.hookimpl
    def preprocess(self):
        return [Sour()]
"""


def test_a_component_that_raises_at_a_record_stops_the_run_naming_plugin_and_record(unloadable: Desk) -> None:
    unloadable.write("sour.py", SOUR)
    done = unloadable("prepare", *OWN, "--plugin", "sour.py", code=1)
    [line] = done.err.splitlines()
    assert "plugin 'sour' failed in hook 'preprocess'" in line
    assert "KeyError: 'dose'" in line


def test_debugging_a_check_shows_where_a_component_failed(unloadable: Desk) -> None:
    unloadable.write("sour.py", SOUR)
    words = ("check", *OWN, "--plugin", "sour.py")
    [line] = [line for line in unloadable(*words, code=2).out.splitlines() if "KeyError" in line]
    assert line.startswith("--plugin sour.py: plugin 'sour' failed in hook 'preprocess': KeyError: 'dose' (sour.py:12)")
    done = subprocess.run(
        unloadable.command(*words), cwd=unloadable.folder, env={**unloadable.env(), "R1CORE_DEBUG": "1"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert 'raise KeyError("dose")' in done.stderr


def test_a_table_that_is_no_csv_is_told_its_separator(unloadable: Desk) -> None:
    unloadable.write("notes.csv", (unloadable.folder / "notes.csv").read_text().replace(",", ";"))
    [line, _] = refused(unloadable, *OWN)
    assert line.startswith("error: own.toml:13: ")
    assert "notes.csv: the file is separated by `;`, expected commas" in line


def test_rows_that_leave_no_validation_split_stop_before_training(desk: Desk) -> None:
    desk.write("notes.csv", "".join((desk.folder / "notes.csv").read_text().splitlines(keepends=True)[:5]))
    words = (*OWN, "--set", "evaluate.baselines=true")
    told = "the validation split has no rows, so the TF-IDF baseline cannot be tuned"
    assert told in desk("check", *words, code=2).out
    stopped = desk("adapt", *words, "--set", 'data.choices=["heart", "lungs", "skin"]', code=2)
    assert told in stopped.err
    assert not (desk.folder / "runs/own/adapter").exists()


def spoil(desk: Desk, bad: list[bytes]) -> None:
    """The same records as JSON lines, with bad ones among them from line 3 on."""
    rows = [line.split(",") for line in (desk.folder / "notes.csv").read_text().splitlines()[1:]]
    names = ("Description", "Clinic", "No", "Patient")
    lines = [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]
    lines[2:2] = bad
    (desk.folder / "notes.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    desk.write("own.toml", RECIPE.replace("notes.csv", "notes.jsonl"))


BAD = [
    b'{"Description": "cough", "Clinic": "lungs"',
    b'{"Description": "caf\xe9", "Clinic": "heart", "No": "x1", "Patient": "px"}',
    b'{"Description": 17, "Clinic": "heart", "No": "x2", "Patient": "px"}',
    b'{"Description": "cough", "Clinic": null, "No": "x3", "Patient": "px"}',
    b'["cough", "lungs"]',
    b'{"Description": "cough", "Clinic": "lungs", "No": "n0", "Patient": "p0"}',
    b'{"Description": "toothache", "Clinic": "dentist", "No": "x4", "Patient": "px"}',
]


def test_bad_rows_are_set_aside_with_line_and_reason(desk: Desk) -> None:
    spoil(desk, BAD)
    stopped = desk("prepare", *OWN, code=2)
    [line, fix] = stopped.err.splitlines()
    assert line.startswith("error: train: 6 of ")
    assert "the first: " in line
    assert "raise data.max_bad_fraction" in fix
    assert not (desk.folder / "runs/own/data/train.jsonl").exists()

    labels = 'data.choices=["heart", "lungs", "skin"]'
    done = desk("prepare", *OWN, "--set", "data.max_bad_fraction=0.2", "--set", labels)
    assert "7 set aside" in done.out
    aside = [json.loads(line) for line in (desk.folder / "runs/own/data/quarantine.jsonl").read_text().splitlines()]
    path = str(desk.folder / "notes.jsonl")
    reasons = {entry.get("line"): entry["reason"] for entry in aside if entry["file"] == path}
    assert reasons[3].startswith("broken JSON at column ")
    assert reasons[4].startswith("bad UTF-8 at byte 20")
    assert reasons[5] == "column 'Description': expected text, found int 17"
    assert reasons[6] == "column 'Clinic': expected text, found nothing"
    assert reasons[7] == "expected a JSON object, found list"
    assert reasons[8] == "duplicate id 'n0'"
    assert reasons[9].startswith("answer 'dentist' is not one of the label set (heart, lungs, skin")


def test_weights_that_are_garbage(unloadable: Desk) -> None:
    done = unloadable("train", *OWN, code=2)
    assert len([line for line in done.err.splitlines() if line.startswith("error: ")]) == 1
    assert "tiny" in done.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("frobnicate",), ("no verb 'frobnicate'", "see r1core --help")),
        (("adpt", "medical"), ("no verb 'adpt'", "did you mean `r1core adapt`?")),
        (("adapt",), ("no domain and no recipe", "r1core adapt medical, or --recipe my.toml")),
        (("adapt", "no/such"), ("no/such: no run here", "name a run directory, or a domain")),
        (("verify",), ("Missing argument 'RUN'", "r1core verify --help")),
        (("verify", "runs/none"), ("no run at ", "r1core adapt DOMAIN")),
        (("adapt", "--recpie", "x"), ("No such option", "--recipe")),
        (("plugins", "--hook", "rewrad"), ("no hook 'rewrad'", "did you mean 'reward'?")),
        (("plugins", "show", "nope"), ("plugin 'nope' is not installed", "fix")),
        (("domains", "show", "nope"), ("domain 'nope' is not installed", "fix")),
        (("new", "plugin", "My Plugin"), ("lower-case letters", "r1core new plugin my_plugin")),
        (("generate", "--recipe", "own.toml", "--prompt", "x"), ("not trained yet", "r1core train")),
    ],
)
def test_what_is_typed_wrong_gets_what_to_type(words: tuple[str, ...], expected: tuple[str, ...], desk: Desk) -> None:
    done = desk(*words, code=2)
    assert done.out == ""
    for part in expected:
        assert part in done.err
    assert len(done.err.splitlines()) == 2, done.err


def test_a_folder_of_other_things_is_left_alone(desk: Desk) -> None:
    precious = desk.folder / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("mine")
    done = desk("prepare", *OWN, "--run", "thesis", code=2)
    assert "holds other files" in done.err
    assert [p.name for p in precious.iterdir()] == ["chapter.txt"]
