"""Evaluation: predictions, baselines, metrics with standard errors, and the rows of `evaluation/summary.json`.

All but the stage itself is torch-free: a model's answers come in as texts and scores (`predictions`).
"""
