"""`gymnasium.make("treerl/Denoising-v0")`: known without an import, made by settings, checked."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from treerl.errors import InputError
from treerl.gym.env import DenoisingEnv
from treerl.gym.registration import ID
from treerl.gym.vector import VectorDenoisingEnv
from treerl.reward.rewards import Rewards

SHORT = {"recipe": "treegrpo", "env.steps": 3, "tree.branching.depth": 2}


def printed(code: str) -> str:
    """What a new interpreter prints, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "imports",
    [
        "import gymnasium, treerl",
        "import treerl, gymnasium",
        "import treerl; from gymnasium import make; import gymnasium",
        "import treerl, importlib.util; importlib.util.find_spec('gymnasium'); import gymnasium",
    ],
    ids=["after", "before", "from", "asked"],
)
def test_the_name_is_known_in_whatever_order_things_are_imported(imports: str) -> None:
    shown = printed(f"{imports}; print(gymnasium.spec('{ID}').vector_entry_point)")
    assert shown == "treerl.gym.make:make_vector"


def test_the_name_brings_its_module() -> None:
    for imports in ("import gymnasium", "import treerl, gymnasium"):
        code = f"{imports}; e = gymnasium.envs.registration._find_spec('treerl:{ID}'); print(e.id)"
        assert printed(code) == ID


def test_importing_treerl_imports_nothing_heavy() -> None:
    code = "import treerl, sys; print({'gymnasium', 'numpy', 'torch'} & set(sys.modules))"
    assert printed(code) == "set()"


def test_importing_gymnasium_leaves_no_hook_behind() -> None:
    count = "len(sys.meta_path)"
    code = f"import treerl, sys; before = {count}; import gymnasium; print({count} - before)"
    assert printed(code) == "-1"


@pytest.fixture(scope="module")
def env() -> Iterator[DenoisingEnv]:
    env = gymnasium.make(ID, settings=SHORT, render_mode="rgb_array", tasks="heldout").unwrapped
    assert isinstance(env, DenoisingEnv)
    yield env
    env.close()


def test_gymnasiums_own_checker_accepts_it(env: DenoisingEnv) -> None:
    check_env(env)  # any warning fails, here as everywhere


def test_its_tasks_are_the_held_out_ones(env: DenoisingEnv) -> None:
    space = env.observation_space
    assert isinstance(space, gymnasium.spaces.Dict)
    assert space["task"] == gymnasium.spaces.Discrete(40)
    assert len(env._process.env.tasks) == 40


def test_an_image_is_rendered_before_and_after_the_end(env: DenoisingEnv) -> None:
    env.reset(seed=0)
    pictures = [env.render()]
    for _ in range(3):
        env.step(np.zeros(env.action_space.shape or (), np.float32))
        pictures.append(env.render())
    for picture in pictures:
        assert picture is not None and picture.shape == (32, 32, 3) and picture.std() > 10
    finished = env._process.env.samples(env.snapshot().state).images[0]
    last = torch.from_numpy(pictures[-1]).permute(2, 0, 1)
    assert torch.allclose(last / 255, finished, atol=0.5 / 255 + 1e-6)


def test_the_vector_form_of_the_tiny_model_is_the_single_one_row_by_row() -> None:
    tasks = ("a red circle on the left", "a blue square at the top")
    kwargs: dict[str, Any] = {"settings": SHORT, "tasks": tasks, "deterministic": [0, 2]}
    envs = gymnasium.make_vec(ID, num_envs=3, **kwargs)
    theirs = gymnasium.make_vec(ID, num_envs=3, vectorization_mode="sync", **kwargs)
    assert isinstance(envs, VectorDenoisingEnv)
    envs.action_space.seed(0)
    pairs: list[Any] = [(envs.reset(seed=5), theirs.reset(seed=5))]
    for _ in range(5):
        actions = envs.action_space.sample()
        pairs.append((envs.step(actions), theirs.step(actions)))
    for ours, single in pairs:
        for name, rows in ours[0].items():
            np.testing.assert_allclose(rows, single[0][name], rtol=0, atol=1e-4)
    np.testing.assert_allclose(pairs[3][0][1], pairs[3][1][1], rtol=0, atol=1e-4)
    assert pairs[3][0][2].all()
    envs.close()
    theirs.close()


def test_closing_ends_the_workers_of_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Rewards] = []
    monkeypatch.setattr(Rewards, "close", lambda rewards: closed.append(rewards))
    env = gymnasium.make(ID, settings=SHORT)
    assert closed == []
    env.close()
    assert len(closed) == 1
    with pytest.raises(InputError, match="deterministic: expected steps below 3, got 3"):
        gymnasium.make(ID, settings=SHORT, deterministic=[3])
    assert len(closed) == 2  # nobody else could


def test_a_run_file_is_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("env: {steps: 4}\n", encoding="utf-8")
    env = gymnasium.make(ID, config=file, settings={"tree.branching.depth": 1})
    assert env.observation_space["step"] == gymnasium.spaces.Discrete(5)  # type: ignore[index]
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tasks": "test"}, "tasks: expected train, heldout or a list of prompts, got 'test'"),
        ({"settings": {"env.step": 3}}, "env.step"),
    ],
    ids=["tasks", "settings"],
)
def test_a_mistake_is_one_line(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        gymnasium.make(ID, **kwargs)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("tasks", [[], [3], None, 7, "somewhere", ["a cat", None]])
def test_what_is_no_list_of_prompts_is_refused(tasks: Any) -> None:
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(InputError, match="tasks: expected train, heldout or a list"):
            make(ID, settings=SHORT, tasks=tasks)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "x"}, "options.task: expected a row below 2, got 'x'"),
        ({"task": True}, "options.task: expected a row below 2, got true"),
        ({"task": 2}, "options.task: expected a row below 2, got 2"),
        ({"task": -1}, "options.task: expected a row below 2, got -1"),
        ({"task": 0.5}, "options.task: expected a row below 2, got 0.5"),
        ({"tsk": 1}, "options: expected task alone, got 'tsk'"),
    ],
)
def test_what_is_no_option_of_a_reset_is_refused(options: dict[str, Any], said: str) -> None:
    env = gymnasium.make(ID, settings=SHORT, tasks=["a cat", "a dog"])
    with pytest.raises(InputError) as error:
        env.reset(options=options)
    assert str(error.value) == said
    env.reset(options={"task": np.int64(1)})
    env.close()
