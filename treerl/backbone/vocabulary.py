"""Whether a tokenizer fits the text encoder that reads its ids."""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from treerl.errors import InputError


def refuse_misfits(components: dict[str, Any], what: str) -> None:
    """`InputError` for a pipeline's tokenizer that makes more ids than its encoder has room for.

    `tokenizer_2` makes those of `text_encoder_2`, and so on.
    """
    for name, words in components.items():
        encoder = components.get(name.replace("tokenizer", "text_encoder"))
        if isinstance(words, PreTrainedTokenizerBase) and isinstance(encoder, PreTrainedModel):
            _refuse_ids(name, words, encoder, what)
            _refuse_length(name, words, encoder, what)


def _refuse_ids(
    name: str, words: PreTrainedTokenizerBase, encoder: PreTrainedModel, what: str
) -> None:
    known = encoder.get_input_embeddings().num_embeddings
    highest = max(words.get_vocab().values(), default=0)
    if highest >= known:
        kind = type(encoder).__name__
        raise InputError(
            f"{what}: {name}: expected ids below {known}, as the {kind} has no more words, "
            f"got {highest}"
        )


def _refuse_length(
    name: str, words: PreTrainedTokenizerBase, encoder: PreTrainedModel, what: str
) -> None:
    """A CLIP has learned so many positions; other encoders go by the distance of two words."""
    positions = getattr(encoder.config, "max_position_embeddings", None)
    if not encoder.config.model_type.startswith("clip") or positions is None:
        return
    length = words.model_max_length
    if length > positions:
        kind = type(encoder).__name__
        raise InputError(
            f"{what}: {name}: model_max_length: expected at most {positions}, as the {kind} has no "
            f"more positions, got {length:g}"
        )
