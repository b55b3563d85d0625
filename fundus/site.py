"""The site file: arguments that a hospital's jobs need every night, in one TOML file.

`site.toml` in the working directory is read if it exists, `--site FILE` names another file, and
arguments override both. The file contains no secrets: credentials and the key of pseudonyms stay in
the environment. docs/site.toml is an example with every key.
"""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundus.errors import ConfigurationError, MissingFile

NAME = "site.toml"

KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "the site's name, for reports"),
    "archive": (str, "where the photographs are: a folder, s3://bucket/prefix or @LIST"),
    "results": (str, "location of the rows: a folder or s3://bucket/prefix"),
    "bundle": (str, "location of the bundle that is adapted and that screens"),
    "source": (list, "labelled sets, layout:path?key=value"),
    "target": (list, "sets of the site's own camera, such as folder:path"),
    "storage": (str, "location of the checkpoints"),
    "recipe": (str, "the recipe's name"),
    "change": (list, "fields of the adaptation's recipe, field=value"),
    "gradability": (str, "for pictures of poor quality: refuse, advise or off"),
    "profile": (str, "passes per picture: exact or fast"),
    "precropped": (bool, "the photographs are disc crops already"),
    "pseudonyms": (bool, "rows carry an HMAC instead of the URI"),
}
"""The keys of a site file, with the type and the meaning of each. A list may be a single text."""

KINDS = {str: "a text in quotes", list: "a text in quotes or a list of them", bool: "true or false"}


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    needed: Sequence[str] = (),
    **otherwise: Any,
) -> argparse.Namespace:
    """Parse arguments; missing ones are taken from the site file, or else from `otherwise`.

    `name` is the site's name: from the argument of that name if the job has one, else from the site
    file, else "".

    Args:
        parser: options that a site file may set have the names of the keys and the default None.
        arguments: the command line; None for that of the process.
        needed: keys that the job requires.
        otherwise: default values of other keys.

    Raises:
        ConfigurationError: the site file cannot be used, or a required value is missing.
    """
    parser.add_argument(
        "--site", type=Path, metavar="FILE", help=f"site file; default: {NAME}, if it exists"
    )
    args = parser.parse_args(arguments)
    known = read(args.site)
    args.name = getattr(args, "name", None) or known.get("name", "")
    for name in (*needed, *otherwise):
        if getattr(args, name) is None:
            setattr(args, name, known.get(name, otherwise.get(name)))
    missing = [name for name in needed if getattr(args, name) is None]
    if missing:
        options = ", ".join(f"--{name}" for name in missing)
        where = args.site or NAME
        raise ConfigurationError(f"give {options}, or put {', '.join(missing)} into {where}")
    return args


def read(file: Path | None = None) -> dict[str, Any]:
    """Read and check a site file; None for `site.toml`, which may be missing.

    Raises:
        ConfigurationError: the file is missing or not TOML, or a key or value is wrong.
    """
    path = file or Path(NAME)
    if not path.is_file():
        if file:
            raise MissingFile(f"--site {file}: no such file; check the path")
        return {}
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    return {name: _checked(path, name, value) for name, value in known.items()}


def _checked(path: Path, name: str, value: Any) -> Any:
    if name not in KEYS:
        raise ConfigurationError(f"{path}: there is no key {name!r}; keys: {', '.join(KEYS)}")
    kind, _ = KEYS[name]
    if kind is list and isinstance(value, str):
        value = [value]
    many = value if isinstance(value, list) else []
    fits = isinstance(value, kind) and all(isinstance(one, str) for one in many)
    if not fits:
        raise ConfigurationError(f"{path}: {name} is {value!r}; give {KINDS[kind]}")
    return value
