"""A small T5 text encoder and its tokenizer, for the tiny pipelines that read captions with one."""

from collections.abc import Sequence

from transformers import T5TokenizerFast

TOKENS = 8  # of a caption, with its end mark; "a red circle in the centre" has seven


def tokenizer(captions: Sequence[str]) -> T5TokenizerFast:
    """A T5 tokenizer with one token for each word of the captions."""
    words = dict.fromkeys(word for caption in captions for word in caption.split())
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        *((f"▁{word}", -1.0) for word in words),
    ]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=TOKENS)


def sizes(words: T5TokenizerFast, width: int) -> dict[str, float | str]:
    """What a T5Config or UMT5Config needs to be small."""
    return {
        "vocab_size": len(words),
        "d_model": width,
        "d_kv": 16,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
    }
