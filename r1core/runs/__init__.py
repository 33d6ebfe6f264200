"""The run directory and everything that makes a run traceable: stages, checkpoints, manifest, report."""
