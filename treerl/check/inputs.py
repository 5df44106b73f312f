"""Whether a backbone listens: an input without effect would hide every fault in how it is made."""

from dataclasses import replace

import torch
from torch import Tensor

from treerl.backbone.pipeline import PipelineBackbone
from treerl.check.finding import Skip, check
from treerl.check.subject import TOLERANCE, Subject, apart

AUDIBLE = 100 * TOLERANCE  # below it, the comparison with the pipeline could not hear a fault
_OTHER = "a blurred photograph of nothing at all"

Result = tuple[bool, str]


@check("does predict hand the condition to the network, row by row, and does the network read it?")
def text(subject: Subject) -> Result:
    """Another prompt gives another prediction."""
    if not subject.condition.tensors:
        raise Skip("its tasks are encoded as nothing")
    last = subject.tasks[-1]
    prompts = [task.prompt for task in subject.tasks if task.prompt != last.prompt]
    if not prompts:
        raise Skip("there is one prompt alone")
    # that of the last row alone changes, so that a network that reads another row's is found
    other = max(prompts, key=len)  # a short one moves a short one little
    tasks = [*subject.tasks[:-1], replace(last, prompt=other)]
    with torch.no_grad():
        condition = subject.backbone.encode(tasks)
        before = subject.predict(guidance=1.0)
        after = subject.predict(condition=condition, guidance=1.0)
    return _effect("text", before[-1], after[-1])


@check("encode the negative prompt of the task in uncond, and hand it to the network")
def negative_prompt(subject: Subject) -> Result:
    """Another negative prompt gives another prediction where it is guided."""
    _refuse_unguided(subject)
    with torch.no_grad():
        others = [replace(task, negative=_OTHER) for task in subject.tasks]
        other = subject.predict(condition=subject.backbone.encode(others))
        return _effect("the negative prompt", subject.predict(), other)


@check("does predict hand the time to the network, in the network's unit?")
def time(subject: Subject) -> Result:
    """Another time gives another prediction of the same latents."""
    with torch.no_grad():
        return _effect("time", subject.predict(step=1), subject.predict(step=2))


@check("see combine, uncond, guidance_embedded and network")
def guidance(subject: Subject) -> Result:
    """Guidance changes the prediction."""
    backbone = subject.backbone
    if isinstance(backbone, PipelineBackbone) and backbone.guidance_embedded:
        configs = [getattr(module, "config", {}) for module in backbone.denoisers.values()]
        if any(config.get("guidance_embeds") is False for config in configs):
            raise Skip("its network takes no guidance")
    else:
        _refuse_unguided(subject)
    with torch.no_grad():
        return _effect("guidance", subject.predict(guidance=1.0), subject.predict())


INPUTS = (text, negative_prompt, time, guidance)


def _refuse_unguided(subject: Subject) -> None:
    if not any(name.startswith("negative_") for name in subject.condition.tensors):
        raise Skip("it has no negative prompt")


def _effect(name: str, before: Tensor, after: Tensor) -> Result:
    effect = apart(after, before)
    if effect < AUDIBLE:
        words = f"another one changes the prediction by {effect:.1e}, less than {AUDIBLE:.0e}"
        return False, f"blind to {name}: {words}"
    return True, f"another one changes the prediction by {effect:.1e}"
