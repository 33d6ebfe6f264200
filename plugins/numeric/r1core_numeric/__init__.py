"""Exact numbers: a reader, programs in rational arithmetic, and answers without numbers of unknown origin."""
