"""`r1core umls`: link and measure, normalise a mention, build and look into a base, list relatives, rank diseases."""

from r1core_umls.cli import bases, diagnoses, relatives, texts
from r1core_umls.cli.common import umls

__all__ = ["bases", "diagnoses", "relatives", "texts", "umls"]
