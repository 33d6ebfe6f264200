"""A Llama model of a few thousand weights and a byte-level BPE tokenizer, both built in code.

The model knows nothing; it is for shapes, gradients, saving and loading. torch and transformers are imported
when a function is called, so that importing this module costs nothing.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 400
HIDDEN = 32
CONTEXT = 512  # tokens

SENTENCES = (
    "The patient reports chest pain and shortness of breath since yesterday.",
    "Which specialty treats essential hypertension? Answer with one specialty.",
    "Warfarin and aspirin together raise the risk of bleeding.",
    "Type 2 diabetes mellitus without complications; metformin 500 mg twice a day.",
    "The share closed at 12.50 after a loss of 3 percent on heavy volume.",
    "No acute distress. Lungs clear, heart regular, abdomen soft.",
    "Cardiology, neurology, oncology, dermatology, psychiatry, surgery.",
    "Le médecin a prescrit un traitement; 患者没有发热。",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, as many published models use it."""


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens with a ChatML template; every text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A two-block Llama with tied embeddings, fp32, weights drawn from `seed` and not from the global generator."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_model_dir(path: Path, seed: int = 0) -> Path:
    """Save model and tokenizer as a Hugging Face directory and return it."""
    path.mkdir(parents=True, exist_ok=True)
    tiny_model(seed).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
