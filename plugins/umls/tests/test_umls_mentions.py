"""Where mentions may stand, and what the encoder answers there: on a made-up base.

Its encoder has random vectors of words and n-grams, so that equal words are equal and others are not; its ranker weighs
the cosine alone. Nothing is learnt, which takes no time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from r1core_umls.assembly import linker_of
from r1core_umls.cli import umls
from r1core_umls.config import UmlsConfig
from r1core_umls.encoder import Encoder
from r1core_umls.evidence import NAMED
from r1core_umls.features import BUCKETS
from r1core_umls.mentions import light_chunks, spacy_chunks
from r1core_umls.plugin import LinkAnnotator, UmlsPlugin
from r1core_umls.ranking import Fitted, Ranker
from r1core_umls.tables import Tables

from r1core import api


def chunks(text: str) -> list[str]:
    return [text[start:end] for start, end in light_chunks(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("He has hypertonia and brisk reflexes.", ["hypertonia", "brisk reflexes"]),
        ("tapering of the fingers", ["tapering", "tapering of the fingers", "fingers"]),
        ("large, high-arched palate", ["large", "high-arched palate"]),
        ("The patient was 66 years old.", []),
        ("cysts in his kidneys. In time", ["cysts", "cysts in his kidneys", "kidneys", "time"]),
        ("", []),
    ],
)
def test_chunks_are_cut_at_words_that_name_nothing(text: str, wanted: list[str]) -> None:
    assert chunks(text) == wanted


def test_a_spacy_pipeline_gives_its_entities_by_name_or_folder(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "X", "pattern": "odd gait"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "own")
    assert spacy_chunks(tmp_path / "own")("An odd gait was seen.") == [(3, 11)]
    spacy.blank("en").to_disk(tmp_path / "none")
    for pipeline in (tmp_path / "none", tmp_path / "absent", "no_such_package"):
        with pytest.raises(api.UserError) as raised:
            spacy_chunks(pipeline)
        assert str(pipeline) in str(raised.value)
        assert raised.value.fix


def by_cosine(names: list[str], owners: list[int], said: list[str], parents: list[list[int]], *_: object) -> Fitted:
    weights = np.random.default_rng(0).normal(0, 0.05, (BUCKETS, 64)).astype(np.float16)
    first = np.zeros((len(NAMED) + 1, 1), np.float32)
    first[NAMED.index("cosine")] = 20
    columns = np.zeros(len(NAMED), np.float32), np.ones(len(NAMED), np.float32)
    kept_back = np.ones(1, np.float32), np.ones(1, bool)
    ranker = Ranker(*columns, first, np.array([1, 0], np.float32), *kept_back)
    return Fitted(Encoder(weights), ranker, Tables.of(Encoder(weights), names, owners, said, parents))


@pytest.fixture(scope="module")
def made_up(
    tmp_path_factory: pytest.TempPathFactory, organs: dict[str, str], findings: tuple[str, ...]
) -> Iterator[UmlsConfig]:
    """A base of organs and findings, each in English and Latin."""
    folder = tmp_path_factory.mktemp("made_up")
    rows = [{"id": "Y:0", "name": "Finding"}, {"id": "Y:1", "name": "Colour"}]
    for number, (organ, finding, how) in enumerate(product(organs, findings, ("acute", "chronic"))):
        names = f"{how} {organ} {finding}", f"{how} {organs[organ]} {finding}"
        rows.append({"id": f"X:{number}", "name": names[0], "synonyms": [names[1]], "parents": ["Y:0"]})  # type: ignore[dict-item]
    (folder / "base.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R1CORE_CACHE", str(folder))
        patch.setattr("r1core_umls.fitting.fit", by_cosine)
        yield UmlsConfig(source="jsonl", file=folder / "base.jsonl", encoder=True, min_probability=0.0)


def found(config: UmlsConfig, text: str) -> list[tuple[str, str, str]]:
    return [(one.value.matched, one.value.name, one.value.method) for one in linker_of(config).link(text)]


def test_an_encoder_that_is_not_trained_is_told_and_never_trained_by_surprise(made_up: UmlsConfig) -> None:
    plan = api.Plan({}, {"plugins.umls.encoder": "recipe.toml:9"})
    (problem,) = UmlsPlugin().validate(api.Context("", made_up, 0), plan)
    assert problem.where == "recipe.toml:9"
    assert problem.fix.startswith(f"r1core umls train {made_up.file}")
    with pytest.raises(api.UserError, match="not trained"):
        linker_of(made_up)
    with pytest.raises(api.UserError, match="not trained"):
        LinkAnnotator(made_up).fingerprint()
    before = made_up.model_copy(update={"encoder": False})
    assert found(before, "Acute renal cyst.") == [("Acute renal cyst", "acute kidney cyst", "normalised")]
    trained = CliRunner().invoke(umls, ["train", str(made_up.file)])
    assert trained.exit_code == 0, trained.output
    assert list(UmlsPlugin().validate(api.Context("", made_up, 0), plan)) == []


def test_words_in_another_order_are_found(made_up: UmlsConfig) -> None:
    text = "He had an acute cyst of the kidney, but no weather report."
    assert found(made_up, text) == [("acute cyst of the kidney", "acute kidney cyst", "encoder")]
    (link,) = linker_of(made_up).link(text)
    assert text[link.start : link.end] == link.value.matched
    assert 0 <= link.value.probability <= 1
    assert [one for one, _ in link.scored] == [link.value.concept_id, *link.value.alternatives]
    assert found(made_up, "The acute kidney cyst was large.")[0][2] == "exact"


def test_it_abstains_below_the_probability_asked_for(made_up: UmlsConfig) -> None:
    sure = made_up.model_copy(update={"min_probability": 1.0})
    assert found(sure, "an acute cyst of the kidney") == []


def test_only_what_lies_under_a_concept_is_linked(made_up: UmlsConfig) -> None:
    text = "Colour of an acute kidney cyst, acute cyst of the liver"
    assert [name for _, name, _ in found(made_up, text)] == ["Colour", "acute kidney cyst", "acute liver cyst"]
    under = made_up.model_copy(update={"under": ("Y:0",)})
    assert [name for _, name, _ in found(under, text)] == ["acute kidney cyst", "acute liver cyst"]
    with pytest.raises(api.UserError, match="under: Z:1 is not in"):
        linker_of(made_up.model_copy(update={"under": ("Z:1",)}))


def test_the_fingerprint_follows_encoder_probability_and_pipeline(made_up: UmlsConfig, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "meta.json").write_text("{}")
    changes: list[dict[str, object]] = [
        {}, {"encoder": False}, {"min_probability": 0.7}, {"under": ("Y:0",)}, {"context": False},
        {"pipeline": str(tmp_path / "own")},
    ]  # fmt: skip
    seen = {LinkAnnotator(made_up.model_copy(update=change)).fingerprint() for change in changes}
    (tmp_path / "own" / "meta.json").write_text('{"version": "2"}')
    seen.add(LinkAnnotator(made_up.model_copy(update=changes[-1])).fingerprint())
    assert len(seen) == len(changes) + 1


def test_the_annotator_writes_what_the_encoder_found(made_up: UmlsConfig) -> None:
    example = api.Example("1", (api.Message("user", "No acute cyst of the kidney."),), "task")
    (span,) = LinkAnnotator(made_up)(example).spans
    assert (span.value.name, span.value.method, span.value.negated) == ("acute kidney cyst", "encoder", True)


def test_options_of_the_encoder_want_the_encoder() -> None:
    result = CliRunner().invoke(umls, ["link", "x", "--pipeline", "en_core_sci_md"])
    assert isinstance(result.exception, api.UserError)
    with pytest.raises(ValueError, match="encoder = true"):
        UmlsConfig(pipeline="en_core_sci_md")


def test_a_name_that_the_linker_left_alone_is_not_asked_for_again(made_up: UmlsConfig) -> None:
    linker = linker_of(made_up)
    assert linker.unlisted is not None
    for text, answered in (("acute kidney pain", False), ("acute pain of kidney", True)):
        assert bool(linker.unlisted.links(text, [], [(0, len(text))])) == answered
