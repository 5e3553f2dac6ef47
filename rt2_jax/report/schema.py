"""The shape of report.json, in schema.json beside this file, and the small part of a checker that it needs.

Reports are checked when they are written and when they are read to be compared; the core does not depend on a JSON
Schema package for that. The tests hold `defects` against the real one.
"""

import importlib.resources
import json
from typing import Any

from rt2_jax.errors import UserError
from rt2_jax.typed import join, shown

SCHEMA: dict[str, Any] = json.loads(
    importlib.resources.files("rt2_jax.report").joinpath("schema.json").read_text(encoding="utf-8")
)
SCHEMA_NAME: str = SCHEMA["properties"]["schema"]["const"]
# Raised when a field changes its meaning or goes away; a new field does not raise it.
SCHEMA_VERSION: int = SCHEMA["properties"]["version"]["const"]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def _is_type(value: Any, name: str) -> bool:
    # In Python True is an int; in JSON it is not a number.
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _same(value: Any, wanted: Any) -> bool:
    # 1 == True in Python, not in JSON.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _children(value: Any, schema: dict[str, Any], where: str) -> list[str]:
    """The defects inside a list or a dict."""
    found: list[str] = []
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{where}: {len(value)} items")
        for index, item in enumerate(value):
            found += defects(item, schema.get("items", {}), f"{where}[{index}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            found += defects(item, properties.get(name, schema.get("additionalProperties", {})), join(where, name))
    return found


def defects(value: Any, schema: dict[str, Any] = SCHEMA, where: str = "report") -> list[str]:
    """Where `value` breaks `schema`, one line each; empty when it fits.

    Knows the keywords that schema.json uses: $ref into $defs, anyOf, const, enum, type, properties, required,
    additionalProperties, items, minItems, maxItems, minimum and maximum.
    """
    if "$ref" in schema:
        return defects(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
    if "anyOf" in schema:
        tried = [defects(value, option, where) for option in schema["anyOf"]]
        # The option that fits best says best what is wrong: null fails in one place, a damaged object deeper down.
        return [] if not all(tried) else max(tried, key=lambda found: max(line.index(":") for line in found))
    if "const" in schema and not _same(value, schema["const"]):
        return [f"{where}: {shown(value)} is not {schema['const']!r}"]
    if "enum" in schema and not any(_same(value, option) for option in schema["enum"]):
        return [f"{where}: {shown(value)} is none of {schema['enum']!r}"]
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_is_type(value, name) for name in names):
        return [f"{where}: {shown(value)} is not of type {' or '.join(names)}"]
    if _is_number(value) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return [f"{where}: {shown(value)} is outside [{schema.get('minimum')}, {schema.get('maximum')}]"]
    return _children(value, schema, where)


def check(report: Any, where: str = "report") -> dict[str, Any]:
    """Returns `report` if it fits `SCHEMA`; otherwise raises UserError with the first place where it does not.

    Args:
        report: JSON's values.
        where: the file that it was read from, for messages.
    """
    if not isinstance(report, dict) or report.get("schema") != SCHEMA_NAME:
        raise UserError(
            f"{where}: not an evaluation report: schema must be {SCHEMA_NAME!r}; give a report.json of `rt2 eval`"
        )
    if report.get("version") != SCHEMA_VERSION:
        raise UserError(
            f"{where}: report version {shown(report.get('version'))} cannot be read, only {SCHEMA_VERSION}; run "
            "`rt2 eval` again"
        )
    found = defects(report)
    if found:
        raise UserError(f"{where}: damaged report ({len(found)} places, first {found[0]}); run `rt2 eval` again")
    return report
