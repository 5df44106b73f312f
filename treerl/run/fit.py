"""How many rows fit into a card, and what to change when not even one does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from treerl.backbone.settings import PipelineSettings
from treerl.config.schema import Config
from treerl.run.forecast import Forecast
from treerl.run.peak import Peak

MOST = 100_000  # rows that a configuration may name
_PROCESSES = (2, 4, 8)
_ALL = ("encode", "rollout", "decode", "update", "optimizer step")


@dataclass(frozen=True)
class Change:
    """Settings that may lower the peak, and whether they do it in a phase."""

    settings: Mapping[str, Any]  # by dotted path
    helps: tuple[str, ...] = _ALL  # phases
    anew: tuple[str, ...] = ()  # phases to be counted anew
    processes: int = 1
    shown: Mapping[str, str] = field(default_factory=dict)  # of values that a user has to choose

    def text(self) -> str:
        """As it is typed."""
        words = [f"{path}={self.shown.get(path, _plain(to))}" for path, to in self.settings.items()]
        if self.processes > 1:
            words.append(f"--devices {self.processes}")
        return " ".join(words)


@dataclass(frozen=True)
class Fit:
    """The answer to `--for`."""

    size: int  # bytes of the card
    rows: int  # the largest train.micro_batch_size that fits; 0: none
    peak: Peak  # at those rows, or at one
    binding: str  # the phase that forbids one row more
    advice: tuple[tuple[Change, Peak], ...] = ()  # each alone, what saves most first

    def plain(self) -> dict[str, Any]:
        """As `treerl plan --json` prints it."""
        changes = []
        for change, peak in self.advice:
            fits = peak.needed <= self.size
            changes.append({"set": change.text(), "needed_bytes": peak.needed, "fits": fits})
        return {
            "for_bytes": self.size,
            "rows": self.rows or None,
            "binding": self.binding,
            "peak_bytes": self.peak.bytes,
            "needed_bytes": self.peak.needed,
            "advice": changes,
        }


def fit(forecast: Forecast, size: int) -> Fit:
    """The most rows whose peak fits into a card of that size, or advice where none do."""
    single = forecast.at(1)
    if single.needed > size:
        return Fit(size, 0, single, single.phase, tuple(_advice(forecast, single)))
    low = 1
    high = MOST + 1  # does not fit, or may not be named
    while high - low > 1:
        middle = (low + high) // 2
        if forecast.along(middle).needed <= size:
            low = middle
        else:
            high = middle
    peak = single if low == 1 else forecast.along(low)
    return Fit(size, low, peak, forecast.along(low + 1).phase)


def _advice(forecast: Forecast, single: Peak) -> list[tuple[Change, Peak]]:
    """What lowers the peak of one row, each change alone."""
    changes = []
    for change in _changes(forecast):
        if single.phase not in change.helps:
            continue
        try:
            config = changed(forecast.config, change.settings)
        except ValidationError:  # another setting forbids it
            continue
        # parts on several processes are those of the same model, which need not be built again
        other = forecast if change.processes > 1 else forecast.changed(config, change.anew)
        peak = other.at(1, change.processes)
        if peak.bytes < single.bytes:
            changes.append((change, peak))
    return sorted(changes, key=lambda pair: pair[1].bytes)


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed by dotted path."""
    plain = config.model_dump()
    for path, value in settings.items():
        place = plain
        *sections, name = path.split(".")
        for section in sections:
            place = place[section]
        place[name] = value
    return Config.model_validate(plain, context={"allow_plugins": True})


def _changes(forecast: Forecast) -> Iterator[Change]:
    """What the configuration has not done yet."""
    config = forecast.config
    settings: PipelineSettings = config.backbone.build()
    video = forecast.backbone.modality == "videos"
    work = ("rollout", "decode", "update")
    forwards = ("window", "tails", "update")
    if not config.train.gradient_checkpointing:
        yield Change({"train.gradient_checkpointing": True}, ("update",), ("update",))
    if config.train.trainable == "full":
        yield Change({"train.trainable": "lora"}, _ALL, forwards)
    if settings.quantize != "nf4":
        lora = {} if config.train.trainable == "lora" else {"train.trainable": "lora"}
        for how in ("int8", "nf4"):
            yield Change({"backbone.quantize": how} | lora, _ALL, forwards)
    if settings.tiny_vae is None and not video:
        tiny = {"backbone.tiny_vae": "tiny"}
        yield Change(tiny, _ALL, ("decode",), shown={"backbone.tiny_vae": "DIR_OR_ID"})
    for way in ("vae_tiling", "vae_slicing"):
        if not getattr(settings, way):
            yield Change({f"backbone.{way}": True}, ("decode",), ("decode",))
    if config.env.latent_device == "device":
        yield Change({"env.latent_device": "cpu"}, ("rollout", "decode", "update"))
    if not settings.offload_text_encoders:
        yield Change({"backbone.offload_text_encoders": True}, work)
    smaller = forecast.smaller()
    if smaller is not None:
        height, width, frames = smaller
        sizes = {"backbone.height": height, "backbone.width": width}
        if video:
            sizes["backbone.frames"] = frames
        yield Change(sizes, work, (*forwards, "decode"))
    if config.env.guidance > 1 and not forecast.backbone.guidance_embedded:
        yield Change({"env.guidance": 1.0}, ("rollout", "update"), forwards)
    for processes in _PROCESSES:
        yield Change({"parallel.shard": True}, _ALL, processes=processes)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
