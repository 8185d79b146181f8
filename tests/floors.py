"""Pins of every requirement of `pyproject.toml` to its lowest version, one a line, for pip."""

import re
import tomllib
from pathlib import Path


def pins(requirements):
    """`name>=version` as `name==version`; extras of the project itself have no version."""
    result = []
    for requirement in requirements:
        name, _, floor = requirement.partition(">=")
        if floor:
            plain = re.sub(r"\[.*\]", "", name)
            result.append(f"{plain}=={floor}")
    return result


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    requirements = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        requirements.extend(extra)
    print("\n".join(pins(requirements)))
