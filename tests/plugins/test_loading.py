from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from r1core import api
from r1core.plugins.loading import Plugins, load_domain
from r1core.recipe.load import resolve
from r1core.recipe.problems import InvalidInput


def ask(text: str) -> api.Example:
    return api.Example("1", (api.Message("user", text),), "t")


def refusal(*names: str, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        Plugins.load(names, **options)
    assert caught.value.exit_code == 2
    return caught.value


def test_a_third_party_plugin_changes_what_preprocessing_does(third_party: Path) -> None:
    plugins = Plugins.load(["acme"], configs={"acme": {"drugs": ["testomab"]}}, domain="medical", seed=3)
    [(plugin, annotate)] = plugins.call("preprocess")
    assert plugin == "acme"
    assert isinstance(annotate, api.Annotator)
    assert [(s.start, s.end, s.kind) for s in annotate(ask("Give testomab.")).spans] == [(5, 13, "acme/drug")]
    assert plugins.contexts["acme"].domain == "medical"
    assert plugins.contexts["acme"].seed == 3


def test_only_what_was_asked_for_is_imported(third_party: Path) -> None:
    Plugins.load(["acme"])
    assert "acme_r1core" in sys.modules
    assert not {"broken_r1core", "future_r1core", "raising_r1core"} & sys.modules.keys()


def test_the_lock_names_code_by_hash(third_party: Path) -> None:
    [line] = Plugins.load(["acme"]).lock()
    source = (third_party / "acme_r1core.py").read_bytes()
    expected = hashlib.sha256(b"acme_r1core.py\0" + str(len(source)).encode() + b"\0" + source).hexdigest()
    assert line == {
        "name": "acme",
        "distribution": "acme-r1core",
        "version": "1.2.0",
        "api": "<0.2,>=0.1",
        "hooks": ["preprocess"],
        "source_sha256": expected,
    }


def test_a_broken_plugin_names_distribution_library_and_fix(third_party: Path) -> None:
    error = refusal("broken")
    assert "plugin 'broken' of broken-r1core 0.1.0 does not load: ModuleNotFoundError" in str(error)
    assert "library_that_nobody_has" in str(error)
    assert error.fix == "pip install --force-reinstall broken-r1core, or leave it out with --no-plugin broken"
    assert isinstance(error.__cause__ or error, Exception)


def test_a_wrong_api_version_is_refused_before_import(third_party: Path) -> None:
    error = refusal("future")
    assert "'future' of future-r1core 2.0.0 is written for r1core <8,>=7, found r1core" in str(error)
    assert "pip install --upgrade future-r1core" in error.fix
    assert "future_r1core" not in sys.modules


def test_two_of_one_name_are_refused_naming_both(
    third_party: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(shelf / "twin"))
    error = refusal("acme")
    assert "acme-r1core 1.2.0 and twin-r1core 0.3.0" in str(error)
    assert error.fix == "pip uninstall twin-r1core"
    assert Plugins.load(["raising"]).names == ["raising"], "the clash does not disturb others"


def test_a_missing_plugin_gets_the_nearest_name(third_party: Path) -> None:
    error = refusal("acmee")
    assert "plugin 'acmee' is not installed" in str(error)
    assert error.fix == "did you mean 'acme'?"


@pytest.mark.parametrize(("kind", "folder"), [("plugin", "plugins/gadget"), ("domain", "domains/gadget")])
def test_what_the_folder_declares_gets_the_pip_line(
    kind: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="declared in") as caught:
        Plugins.load(["gadget"]) if kind == "plugin" else load_domain("gadget")
    assert caught.value.fix == f"pip install ./{folder}"


def test_all_problems_come_at_once(third_party: Path) -> None:
    error = refusal("broken", "future", "nowhere", configs={"acme": {}, "broken": {}})
    told = "\n".join(problem.found for problem in error.problems)
    assert len(error.problems) == 4
    for name in ("broken", "future", "nowhere", "acme"):
        assert f"'{name}'" in told


def test_narrowing_and_blocking(third_party: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = Plugins.load(["acme", "broken", "raising"], block=["broken"], configs={"broken": {"x": 1}})
    assert plugins.names == ["acme", "raising"]
    assert plugins.left_out == {"broken": "blocked by --no-plugin"}
    monkeypatch.setenv("R1CORE_PLUGINS", "acme, raising")
    assert Plugins.load(["acme", "broken"]).names == ["acme"]
    assert "did you mean 'acme'?" in refusal("acme", block=["acmy"]).fix


def test_one_file_in_development(third_party: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from r1core import api\n"
        "class Gate:\n"
        "    name = 'mine/short'\n"
        "    def __call__(self, example): return None if len(example.messages[0].content) < 5 else 'too long'\n"
        "    def fingerprint(self): return '1'\n"
        "@api.hookimpl\n"
        "def quality_gate(): return [Gate()]\n"
    )
    plugins = Plugins.load(["acme"], files=[file])
    assert plugins.names == ["acme", "mine"]
    [(_, gate)] = plugins.call("quality_gate")
    assert gate(ask("a long text")) == "too long"
    clash = tmp_path / "acme.py"
    clash.write_text("")
    assert "two plugins are named 'acme'" in str(refusal(files=[clash]))
    file.write_text("import library_that_nobody_has\n")
    assert f"({file}) does not import" in str(refusal(files=[file]))


def test_config_is_checked_at_every_level(third_party: Path) -> None:
    error = refusal("acme", configs={"acme": {"drgus": ["x"], "dose": {"unti": "g"}}})
    fixes = {problem.found: problem.fix for problem in error.problems}
    assert fixes == {
        "unknown key `plugins.acme.drgus`": "did you mean `drugs`?",
        "unknown key `plugins.acme.dose.unti`": "did you mean `unit`?",
    }
    assert "has no settings, found x" in str(refusal("raising", configs={"raising": {"x": 1}}))


def test_config_paths_are_relative_to_the_file_that_sets_them(third_party: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "words.txt").write_text("placebo\n")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        "[run]\nname='r'\nplugins=['acme']\n[model]\nbase='b'\n[data]\nsource='s'\n"
        "[plugins.acme]\nlexicon = 'words.txt'\ndrugs = 3\n"
    )
    resolved = resolve(domain=None, file=recipe)
    error = refusal("acme", configs=resolved.require().plugins, resolved=resolved)
    assert error.problems[0].where == f"{recipe}:10"
    resolved = resolve(domain=None, file=recipe, sets=["plugins.acme.drugs=[]"])
    plugins = Plugins.load(["acme"], configs=resolved.require().plugins, resolved=resolved)
    assert plugins.sections()["acme"]["lexicon"] == str(folder / "words.txt")
    [(_, annotate)] = plugins.call("preprocess")
    assert [s.value for s in annotate(ask("a placebo")).spans] == ["placebo"]


def test_an_unknown_hook_is_refused_with_the_nearest(third_party: Path) -> None:
    class Typo(api.Plugin):
        @api.hookimpl
        def preproces(self) -> list[object]:
            return []

    with pytest.raises(InvalidInput, match="unknown hook 'preproces'") as caught:
        Plugins.of("typo", Typo)
    assert caught.value.fix == "did you mean 'preprocess'?"


def test_an_unknown_argument_is_refused() -> None:
    class Wrong(api.Plugin):
        @api.hookimpl
        def reward(self, weights: object) -> list[object]:
            return []

    with pytest.raises(InvalidInput, match="weights"):
        Plugins.of("wrong", Wrong)


@pytest.mark.parametrize(
    ("name", "lack", "told"),
    [
        ("nofp/a", "fingerprint", "it lacks `fingerprint`"),
        ("other/a", "", "is named 'other/a', expected `nofp/...`"),
        ("nofp/", "", "expected `nofp/...`"),
    ],
)
def test_components_that_break_the_contract(name: str, lack: str, told: str) -> None:
    class Gate:
        def __call__(self, example: api.Example) -> None:
            return None

        def fingerprint(self) -> str:
            return "1"

    Gate.name = name  # type: ignore[attr-defined]
    if lack:
        delattr(Gate, lack)

    class Maker(api.Plugin):
        @api.hookimpl
        def quality_gate(self) -> list[object]:
            return [Gate()]

    with pytest.raises(api.PluginError, match="plugin 'nofp' failed in hook 'quality_gate'") as caught:
        Plugins.of("nofp", Maker).call("quality_gate")
    assert told in str(caught.value)


def test_each_plugin_sees_its_own_config_and_the_tokenizer_is_made_once() -> None:
    class Config(BaseModel):
        word: str = "none"

    made: list[str] = []

    class Reader(api.Plugin):
        config = Config

        @api.hookimpl
        def validate(self, ctx: api.Context, plan: api.Plan) -> list[api.Problem]:
            assert isinstance(ctx.config, Config)
            return [api.Problem("x", ctx.config.word, str(ctx.tokenizer), "")]

    plugins = Plugins.of("reader", Reader, config={"word": "w"}, tokenizer_factory=lambda: made.append("t") or "tok")
    [(_, problem)] = plugins.call("validate", plan=api.Plan({}))
    assert (problem.found, problem.expected) == ("w", "tok")


def test_a_missing_requirement_names_its_extra(
    third_party: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.copytree(third_party, site)
    about = site / "broken_r1core-0.1.0.dist-info" / "METADATA"
    extra = "Provides-Extra: train\nRequires-Dist: library-that-nobody-has>=2; extra == 'train'\n"
    # PEP 503: a requirement's name and the module's differ in their separators only
    about.write_text(about.read_text().replace("Requires-Dist: r1core", extra + "Requires-Dist: r1core", 1))
    monkeypatch.syspath_prepend(str(site))
    assert refusal("broken").fix.startswith("pip install 'broken-r1core[train]'")


def function() -> None:
    """An entry point that names a function."""


class Table(BaseModel):
    word: str = "none"


class Forgot(api.Plugin):
    def reward(self) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (function, "(it is the function `function`)"),
        (Table, "(it is of type Table)"),
        (api.Plugin, ""),
        (Forgot, ""),
    ],
)
def test_a_plugin_without_a_hook_is_refused(target: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"plugin 'p' of .* implements no hook") as caught:
        Plugins.of("p", target)
    assert said in str(caught.value)
    forgotten = "`reward`" if target is Forgot else "its functions"
    assert caught.value.fix == f"mark {forgotten} with @api.hookimpl"


def test_a_file_without_a_hook_is_refused(third_party: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("")
    assert "plugin 'empty' of " in str(error := refusal(files=[file]))
    assert "implements no hook" in str(error)
    file.write_text("def reward():\n    return []\n")
    assert refusal(files=[file]).fix == "mark `reward` with @api.hookimpl"
    file.write_text("from r1core import api\nclass A(api.Plugin): pass\nclass B(A): pass\nclass C(A): pass\n")
    assert "holds the plugins B and C; expected one a file" in str(refusal(files=[file]))


def test_an_argument_that_no_hook_has_is_refused_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from r1core import api\n\n\n@api.hookimpl\ndef extra_layer(ctx, modle):\n    return []\n")
    error = refusal(files=[file])
    assert str(error).startswith(f"{file}:4: plugin 'mine' of ")
    assert "hook 'extra_layer' has no argument 'modle'; expected any of ctx, model" in str(error)
    assert error.fix == "did you mean 'model'?"


def test_what_fails_in_ones_own_folder_is_named_by_file_and_line(
    third_party: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import json\nWORDS = json.loads('[')\n")
    assert refusal(files=[file]).fix == f"mend {file}:2"
    file.write_text("def broken(:\n")
    assert refusal(files=[file]).fix == f"mend {file}:1"
    file.write_text(
        "import json\nfrom r1core import api\n\n\n@api.hookimpl\ndef reward():\n    return [json.loads('[')]\n"
    )
    with pytest.raises(api.PluginError, match="JSONDecodeError") as caught:
        Plugins.load([], files=[file]).call("reward")
    assert str(caught.value).endswith(f"({file}:7)"), "not the library's line"
    site = tmp_path / "site"
    shutil.copytree(third_party, site)
    about = site / "broken_r1core-0.1.0.dist-info" / "direct_url.json"
    about.write_text('{"url": "file:///mine", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(str(site))
    fix = refusal("broken").fix
    assert fix.startswith(f"mend {site / 'broken_r1core.py'}:")
    assert "force-reinstall" not in fix
