"""The strict TOML recipe: its schema, its merging and its problems with file and line."""
