"""What a device holds, phase by phase: numbers alone."""

from dataclasses import dataclass
from typing import Any

# of cuBLAS: 32 MiB for each of its two interfaces on a Hopper card, less on older ones
WORKSPACES = 2**26
# what a card gives away before the first tensor: the driver's context and the kernels' code
CONTEXT = 2**29
# of the peak, held by the allocator and of no use: sizes rounded up, gaps between tensors
FRAGMENTS = 0.05


@dataclass(frozen=True)
class Line:
    """Bytes that a phase needs beside what stays, linear in the rows of a forward."""

    fixed: float
    each: float  # a row

    @classmethod
    def through(cls, few: tuple[int, int], more: tuple[int, int]) -> "Line":
        """The one through two counts, each of rows and their bytes."""
        each = (more[1] - few[1]) / (more[0] - few[0])
        return cls(few[1] - each * few[0], each)

    def at(self, rows: int) -> int:
        """Bytes of so many rows."""
        return max(0, round(self.fixed + self.each * rows))


@dataclass(frozen=True)
class Peak:
    """Bytes in each phase of an iteration, rewards apart."""

    parts: dict[str, int]  # what stays, by name
    phases: dict[str, int]  # the most that is alive in each, what stays included

    @property
    def phase(self) -> str:
        """The one that needs most."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def bytes(self) -> int:
        """What torch.cuda.max_memory_allocated() would tell."""
        return self.phases[self.phase]

    def plain(self) -> dict[str, Any]:
        """As `treerl plan --json` prints it."""
        return {
            "bytes": self.bytes,
            "needed_bytes": self.needed,
            "phase": self.phase,
            "phases": dict(self.phases),
            "parts": dict(self.parts),
        }

    @property
    def needed(self) -> int:
        """What a card must have for it."""
        return round(self.bytes * (1 + FRAGMENTS)) + CONTEXT


@dataclass(frozen=True)
class Held:
    """Bytes of what is there before a phase begins; `at` puts the phases on top."""

    denoiser: int  # its weights that do not train
    trained: int
    gradients: int
    optimizer: int  # two moments
    others: int  # values of what trains: an average, those before the iteration, or at the start
    vae: int
    text_encoders: int
    networks: int  # of neither kind
    conditions: int  # of an iteration's tasks
    latents: int  # of an iteration's trees, on the device
    growing: int  # beside them, while a rollout puts its levels together
    block: int  # the largest that is gathered where the denoiser lies in parts
    whole: int  # the largest layer of few bits, as it computes

    def peak(self, moving: dict[str, int], offload: bool, processes: int = 1) -> Peak:
        """With what each of these phases needs beside it; `offload` is of text encoders.

        Where the denoiser lies in parts, two blocks are whole at a time: one works, one is awaited.
        """
        share = {name: -(-size // processes) for name, size in self._in_parts().items()}
        gradients = share.pop("gradients")
        parts = share | {
            "vae": self.vae,
            "text encoders": 0 if offload else self.text_encoders,
            "other networks": self.networks,
            "conditions": self.conditions,
            "latents": self.latents,
            "workspaces": WORKSPACES,
        }
        stays = sum(parts.values())
        gathered = self.whole if processes == 1 else 2 * self.block
        phases = {
            "encode": stays + moving["encode"] + (self.text_encoders if offload else 0),
            "rollout": stays + self.growing + max(moving["window"], moving["tails"]) + gathered,
            "decode": stays + moving["decode"],
            "update": stays + gradients + moving["update"] + gathered,
            "optimizer step": stays + gradients,
        }
        return Peak({name: size for name, size in parts.items() if size}, phases)

    def _in_parts(self) -> dict[str, int]:
        return {
            "denoiser": self.denoiser,
            "trained weights": self.trained,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "other weights": self.others,
        }
