"""Genuine tokenizers of bytes and letters for models of random weights: any text has ids."""

import re
import string
from typing import Any

from tokenizers import AddedToken, pre_tokenizers
from transformers import CLIPTokenizer, LlamaTokenizerFast, Qwen2Tokenizer, T5TokenizerFast

from treerl.errors import InputError


def make(name: str, length: int) -> Any:
    """A tokenizer of that class; `length` is its model_max_length."""
    if name not in _MAKERS:
        raise InputError(f"expected a tokenizer of {', '.join(_MAKERS)}, got {name}")
    return _MAKERS[name](length)


def _bytes() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _clip(length: int) -> Any:
    symbols = [byte + end for end in ("", "</w>") for byte in _bytes()]
    words = [
        *symbols,
        "<|startoftext|>",
        "<|endoftext|>",
    ]  # the end mark has the highest id, as in the real one
    return CLIPTokenizer(vocab=_numbered(words), merges=[], model_max_length=length)


def _t5(length: int) -> Any:
    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((letter, -4.0) for letter in letters),
    ]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=length)


def _llama(length: int) -> Any:
    # not above, for a pipeline takes seconds to import
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    words = [
        "<unk>",
        "<s>",
        "</s>",
        "▁",
        *(f"<0x{number:02X}>" for number in range(256)),
        *string.printable[:95],
    ]
    words_to_ids = LlamaTokenizerFast(
        vocab=_numbered(words),
        merges=[],
        pad_token="<unk>",
        add_bos_token=True,
        padding_side="right",
        model_max_length=length,
    )
    # whole words of the template, which is then as long as in Llama 3's own tokens: the pipeline
    # drops a fixed number of them
    template = re.findall(r"<\|\w+\|>|\n\n|\w{2,}", DEFAULT_PROMPT_TEMPLATE["template"])
    words_to_ids.add_tokens(
        [
            AddedToken(word, lstrip=True, single_word=word.isalpha())
            for word in dict.fromkeys(template)
        ]
    )
    return words_to_ids


def _qwen2(length: int) -> Any:
    words_to_ids = Qwen2Tokenizer(
        vocab=_numbered([*_bytes(), "<|endoftext|>"]), merges=[], model_max_length=length
    )
    words_to_ids.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words_to_ids.chat_template = _CHAT
    return words_to_ids


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MAKERS = {
    "CLIPTokenizer": _clip,
    "T5TokenizerFast": _t5,
    "LlamaTokenizerFast": _llama,
    "Qwen2Tokenizer": _qwen2,
}
