"""Evaluation: predictions, baselines, metrics with standard errors, and the rows of `evaluation/summary.json`.

Torch-free: a model comes in as plain callables (`predictions.collect`).
"""
