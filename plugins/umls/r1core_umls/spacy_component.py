"""The spaCy pipeline component `r1core_umls`: links a document's mentions to concepts.

spaCy finds it by the entry point group `spacy_factories`. It feels like scispaCy's linker: `doc.ents` carry
`span._.kb_ents`, a list of (concept id, score), best first; `ent.kb_id_` is the first. Beside them `span._.concept` is
the `LinkedConcept` with name, method and flags.

Entities that stand in the document and overlap no link stay as they are. Offsets that cut a token are widened to whole
tokens. The component keeps no copy of the base: saving a pipeline keeps the configuration and the base's fingerprint,
and loading it where the base differs is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spacy.language import Language
from spacy.tokens import Span
from spacy.util import filter_spans

from r1core.api import UserError
from r1core_umls.assembly import linker_of
from r1core_umls.config import UmlsConfig
from r1core_umls.mentions import doc_chunks

if TYPE_CHECKING:
    from spacy.tokens import Doc

    from r1core_umls.linker import Linker

NAME, FILE = "r1core_umls", "base.json"
DEFAULTS: dict[str, object] = {
    "source": "hpo",
    "directory": None,
    "file": None,
    "languages": ["ENG"],
    "vocabularies": [],
    "semantic_types": [],
    "suppressed": False,
    "broader": False,
    "abbreviations": True,
    "under": [],
    "context": True,
    "encoder": False,
    "min_probability": 0.5,
    "spans_key": "",
    "label": "ENTITY",
}


class ConceptLinker:
    """Links the mentions of a document.

    With `encoder`, the entities and noun chunks of the components before this one are answered too; where none of them
    looks for any, chunks of words.

    Parameters
    ----------
    spans_key : write `doc.spans[spans_key]` and leave `doc.ents` alone; "" writes `doc.ents`.
    label : of the spans written.
    """

    def __init__(self, name: str, config: UmlsConfig, spans_key: str, label: str) -> None:
        self.name, self._config, self._spans_key, self._label = name, config, spans_key, label
        for extension, default in (("kb_ents", []), ("concept", None)):
            if not Span.has_extension(extension):
                Span.set_extension(extension, default=default)

    @cached_property
    def linker(self) -> Linker:
        """The linker; its base is opened, or built, at the first document. Raises UserError."""
        return linker_of(self._config)

    def __call__(self, doc: Doc) -> Doc:
        """Return the document with its links."""
        looked = doc.has_annotation("ENT_IOB") or doc.has_annotation("DEP")
        chunks = doc_chunks(doc) if looked else None
        found: list[Span] = []
        for link in self.linker.link(doc.text, chunks):
            span = doc.char_span(
                link.start, link.end, label=self._label, kb_id=link.value.concept_id, alignment_mode="expand"
            )
            if span is None:
                raise ValueError(
                    f"characters {link.start} to {link.end} are outside the document"
                )  # never, by `expand`
            span._.kb_ents, span._.concept = link.scored, link.value
            found.append(span)
        found = filter_spans(found)
        if self._spans_key:
            doc.spans[self._spans_key] = found
        else:
            taken = {token.i for span in found for token in span}
            doc.set_ents([*found, *(ent for ent in doc.ents if taken.isdisjoint(range(ent.start, ent.end)))])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Yield each document with its links."""
        return map(self, stream)

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write which base the pipeline was made with."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self.to_bytes())

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> ConceptLinker:
        """Check that the base here is the one that the pipeline was made with. Raises UserError where it is not."""
        return self.from_bytes((Path(path) / FILE).read_bytes())

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return which base the pipeline was made with, as JSON."""
        source = self._config.open()
        terms = source.terms()
        stated = {"base": source.fingerprint(), "release": terms.release, "licence": terms.licence}
        return json.dumps(stated, indent=1).encode()

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> ConceptLinker:
        """Check that the base here is the one that the pipeline was made with. Raises UserError where it is not."""
        stated = json.loads(data)
        if stated["base"] != self._config.open().fingerprint():
            raise UserError(
                f"{self.name}: the knowledge base here is not the one that the pipeline was saved with "
                f"(release {stated['release']})",
                fix="install or name that release, or make the pipeline again with add_pipe",
            )
        return self


@Language.factory(
    NAME,
    assigns=["doc.ents", "doc.spans", "span._.kb_ents", "span._.concept"],
    default_config=DEFAULTS,
)
def create(
    nlp: Language,
    name: str,
    source: str,
    directory: str | None,
    file: str | None,
    languages: list[str],
    vocabularies: list[str],
    semantic_types: list[str],
    suppressed: bool,
    broader: bool,
    abbreviations: bool,
    under: list[str],
    context: bool,
    encoder: bool,
    min_probability: float,
    spans_key: str,
    label: str,
) -> ConceptLinker:
    """Return the component; `spans_key` and `label` are its own, the others those of the recipe's `[plugins.umls]`.

    Raises
    ------
    ValidationError : the settings do not go together.
    """
    settings = {key: value for key, value in locals().items() if key in UmlsConfig.model_fields}
    return ConceptLinker(name, UmlsConfig.model_validate(settings), spans_key, label)
