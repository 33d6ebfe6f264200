"""Names of the files of adapters and layers that are r1core's own; torch-free."""

CONFIG, WEIGHTS = "r1core_adapter.json", "r1core_adapter.safetensors"
"""An adapter's description and weights; `kind` tells which of ours it is."""
LAYERS = "r1core_layers.safetensors"
"""Weights of the extra layers, beside any adapter."""
FORMAT = 1
"""Of the description."""
