"""What the benchmarks of the rules engine share: the names, the rule file, the tokenizer and the benign texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data import topics

from r1core import api
from r1core.decode.constraints import Request
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


def tokenizer() -> object:
    """Return the tokenizer of the embedded model (49,152 byte-level BPE tokens)."""
    from r1core_smollm2.plugin import SmolLM2Source
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SmolLM2Source().materialise("smollm2-135m-instruct"))


def start(files: Sequence[Path], vocabulary: Vocabulary) -> api.ConstraintState:
    """Return the constraint's first state, through the plugin's own hook."""
    from r1core_clinical_rules.plugin import ClinicalRulesPlugin
    from r1core_clinical_rules.schema import Config

    ctx = api.Context("", Config(files=tuple(files)), seed=0)
    (constraint,) = ClinicalRulesPlugin().decode_constraint(ctx)
    state = constraint.start(Request(api.Example("bench", (), "bench"), vocabulary))
    if state is None:
        raise RuntimeError("no rule applies: the benchmark would measure nothing")
    return state


def allows(mask: api.TokenMask, token_id: int) -> bool:
    """Whether one token may come next."""
    if mask.allowed is not None:
        return bool(mask.allowed[token_id >> 3] >> (token_id & 7) & 1)
    assert mask.banned is not None
    at = int(mask.banned.searchsorted(token_id))
    return at == len(mask.banned) or int(mask.banned[at]) != token_id


def benign() -> Iterator[str]:
    """Yield English texts: the paragraphs of Python's own manual, then ICD-10-CM titles where they are installed."""
    for topic in topics.topics.values():
        yield from (" ".join(part.split()) for part in re.split(r"\n\s*\n", topic) if len(part) > 80)
    try:
        import simple_icd_10_cm as icd
    except ImportError:
        return
    yield from sorted({icd.get_description(code) for code in icd.get_all_codes()})[::10]
