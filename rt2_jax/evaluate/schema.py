"""The shape of report.json: a JSON Schema (draft 2020-12) and the small part of a checker that it needs.

The schema is data so that other tools can use it: ``json.dumps(SCHEMA)`` is a valid schema file. `check` understands
exactly the keywords used here: type, properties, required, additionalProperties, items, enum, const, minimum,
maximum, minItems and maxItems.
"""

from typing import Any

from rt2_jax.errors import UserError

SCHEMA_NAME = "rt2_jax/evaluation"
# Raised when a field changes its meaning or goes away; a new field does not raise it.
SCHEMA_VERSION = 1

_STRING = {"type": "string"}
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 0}
_SECONDS = {"type": "number", "minimum": 0}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_OPTIONAL_FRACTION = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_OPTIONAL_STRING = {"type": ["string", "null"]}
_INTERVAL = {"type": "array", "items": _FRACTION, "minItems": 2, "maxItems": 2}
_OPTIONAL_INTERVAL = {**_INTERVAL, "type": ["array", "null"]}
_CONTROL = {"type": ["string", "null"], "enum": [None, "wrong_instruction", "other_image"]}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object that has all of `properties`."""
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _array(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


_EPISODE = _object(
    {
        "seed": {"type": "integer"},
        "success": {"type": "boolean"},
        "steps": _COUNT,
        "terminated": {"type": "boolean"},
        "instruction": _STRING,
        "told": _STRING,
    }
)

_RATE = {"episodes": _COUNT, "successes": _COUNT, "rate": _OPTIONAL_FRACTION, "interval": _INTERVAL}

_CLOSED_LOOP = _object(
    {
        "split": _STRING,
        "skill": _STRING,
        "control": _CONTROL,
        "mode": {"enum": ["action", "plan"]},
        **_RATE,
        "terminated": _COUNT,
        "max_steps": {"type": "integer", "minimum": 1},
        "mean_steps": {"type": ["number", "null"], "minimum": 0},
        "episode_results": _array(_EPISODE),
    }
)

_SUMMARY = _object({"split": _STRING, "control": _CONTROL, "mode": {"enum": ["action", "plan"]}, **_RATE})

_TIMING = _object(
    {
        "policy_seconds": _SECONDS,
        "simulation_seconds": _SECONDS,
        "total_seconds": _SECONDS,
        "control_steps": _COUNT,
        "policy_calls": _COUNT,
    }
)

_ACTIONS = _object(
    {
        "task": _STRING,
        "examples": _COUNT,
        "token_accuracy": _FRACTION,
        "exact_match": _FRACTION,
        "terminate_accuracy": _FRACTION,
        "terminate_recall": _OPTIONAL_FRACTION,
        "terminate_precision": _OPTIONAL_FRACTION,
        "gripper_accuracy": _FRACTION,
        "dimensions": _array(
            _object(
                {
                    "name": _STRING,
                    "unit": {"enum": ["cm", "deg", "1"]},
                    "token_accuracy": _FRACTION,
                    "mean_error": _SECONDS,
                    "median_error": _SECONDS,
                    "p90_error": _SECONDS,
                }
            )
        ),
    }
)

_WEB = _array(
    _object(
        {
            "task": _STRING,
            "skill": _STRING,
            "examples": _COUNT,
            "metrics": _array(
                _object(
                    {
                        "name": _STRING,
                        "value": {"type": ["number", "null"]},
                        "unit": {"enum": ["fraction", "percent of frame"]},
                        "interval": _OPTIONAL_INTERVAL,
                        "higher_is_better": {"type": "boolean"},
                    }
                ),
                minItems=1,
            ),
            "samples": _array(_object({"prompt": _STRING, "target": _STRING, "answer": _STRING})),
        }
    )
)

_CHECKPOINT = _object(
    {
        "path": _STRING,
        "sha256": _STRING,
        "model": _STRING,
        "parameters": _COUNT,
        "step": {"type": ["integer", "null"]},
    }
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": SCHEMA_NAME,
    **_object(
        {
            "schema": {"const": SCHEMA_NAME},
            "version": {"const": SCHEMA_VERSION},
            "title": _STRING,
            "created": _STRING,
            "command": _STRING,
            "wall_seconds": _SECONDS,
            "checkpoint": _CHECKPOINT,
            "data": _object({"path": _OPTIONAL_STRING, "split": _STRING}),
            "machine": _object(
                {
                    "system": _STRING,
                    "processor": _STRING,
                    "cores": {"type": "integer", "minimum": 1},
                    "backend": _STRING,
                    "devices": _array(_STRING),
                }
            ),
            "versions": {"type": "object", "additionalProperties": _STRING},
            "confidence": _FRACTION,
            "closed_loop": _array(_CLOSED_LOOP),
            "summary": _array(_SUMMARY),
            "timing": _TIMING,
            "actions": {**_ACTIONS, "type": ["object", "null"]},
            "web": _WEB,
            "forgetting": {
                **_object({"checkpoint": _CHECKPOINT, "web": _WEB}),
                "type": ["object", "null"],
            },
        }
    ),
}

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
            found += defects(item, properties.get(name, schema.get("additionalProperties", {})), f"{where}.{name}")
    return found


def defects(value: Any, schema: dict[str, Any], where: str = "report") -> list[str]:
    """Where `value` breaks `schema`, one line each; empty when it fits."""
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r} is not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is none of {schema['enum']!r}"]
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_is_type(value, name) for name in names):
        return [f"{where}: {value!r} is not of type {' or '.join(names)}"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return [f"{where}: {value!r} is outside [{schema.get('minimum')}, {schema.get('maximum')}]"]
    return _children(value, schema, where)


def check(report: Any) -> dict[str, Any]:
    """Returns `report` if it fits `SCHEMA`; otherwise raises UserError with the first place where it does not."""
    if not isinstance(report, dict) or report.get("schema") != SCHEMA_NAME:
        raise UserError(
            f"not an evaluation report: its schema must be {SCHEMA_NAME!r}; give a report.json of `rt2 eval`"
        )
    if report.get("version") != SCHEMA_VERSION:
        raise UserError(
            f"report version {report.get('version')!r} cannot be read, only {SCHEMA_VERSION}; run `rt2 eval` again"
        )
    found = defects(report, SCHEMA)
    if found:
        raise UserError(f"damaged report ({len(found)} places, first {found[0]}); run `rt2 eval` again")
    return report
