"""For plugin authors: the conformance kit (a pytest plugin) and a tiny model and tokenizer built in code."""
