"""`r1core umls`: link a text, measure linking, normalise a mention, build and look into a base, list relatives."""

from r1core_umls.cli import bases, relatives, texts
from r1core_umls.cli.common import umls

__all__ = ["bases", "relatives", "texts", "umls"]
