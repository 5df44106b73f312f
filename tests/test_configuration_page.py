"""The page of settings names every setting and every parameter, with its default, and no other."""

import re

import yaml
from pages import ROOT

from treerl import registry
from treerl.config.paths import FIELDS, PLUGINS
from treerl.config.schema import Config

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_every_setting_is_documented_with_its_default() -> None:
    settings = PAGE.partition("## Parameters")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \| ", settings, re.M)
    config = Config()
    defaults = {}
    for path in FIELDS:
        value: object = config
        for key in path.split("."):
            value = getattr(value, key)
        defaults[path] = list(value) if isinstance(value, tuple) else value
    defaults["rewards"] = {name: reward.weight for name, reward in config.rewards.items()}
    assert {path: yaml.safe_load(text) for path, text in rows} == defaults
    assert len(rows) == len(defaults)


def test_every_parameter_is_documented_with_its_default() -> None:
    documented = {}
    setting = plugin = ""
    rows = re.findall(r"^\|.* `\w+` \| `.*` \|.*\|$", PAGE.partition("## Parameters")[2], re.M)
    for line in rows:
        first, second, parameter, default = (cell.strip(" `") for cell in line.split("|")[1:5])
        setting = first or setting
        plugin = second or plugin
        documented[setting, plugin, parameter] = default
    expected = {}
    for path, section in PLUGINS.items():
        for name in registry.announced(section.kind):
            plugin = "all" if path == "backbone" else name
            for parameter, value in registry.complete(section.kind, name, {}).items():
                expected[path, plugin, parameter] = value
    assert documented.keys() == expected.keys()
    for place, text in documented.items():
        number = isinstance(expected[place], float)
        assert (float(text) if number else yaml.safe_load(text)) == expected[place], place
