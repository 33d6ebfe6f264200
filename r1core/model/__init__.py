"""Any Hugging Face causal language model: finding, loading, adapters, insertion sites."""
