"""The OpenAPI 3.1 document of a table of operations. `python -m sendengine.api.openapi` prints it, as docs/openapi.json holds it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from sendengine import __version__
from sendengine.api import problems
from sendengine.api.operations import JSON, Operation, Param
from sendengine.api.problems import Kind, ProblemDocument
from sendengine.policy.apikeys import Scope

_REF = "#/components/schemas/{name}"
_path_name = re.compile(r"\{(\w+)\}")
PATH_PARAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "account": ("m1234, a platform id.", {"type": "string", "pattern": "^m[1-9][0-9]{0,17}$"}),
    "send": ("m1234:ID, or with an account's key the ID alone.", {"type": "string"}),
    "boost": ("Its number in the account.", {"type": "integer", "minimum": 1, "maximum": 999_999_999}),
    "hook": ("Its id.", {"type": "string", "pattern": "^[0-9a-f]{16}$"}),
    "address": ("An e-mail address.", {"type": "string", "maxLength": 254}),
    "reason": ("The reason of a hold.", {"type": "string"}),
    "provider": ("A provider of SMS, of providers.toml.", {"type": "string"}),
    "key": ("Its id, not the key.", {"type": "string", "pattern": "^[0-9a-f]{16}$"}),
}
_ERRORS = (
    problems.BAD_REQUEST, problems.UNAUTHORISED, problems.NO_CREDIT, problems.NOT_PAID, problems.FORBIDDEN, problems.NOT_FOUND,
    problems.TIMED_OUT, problems.CONFLICT,
    problems.TOO_LARGE, problems.NO_MEDIA, problems.TOO_MANY, problems.HEAD_TOO_LARGE, problems.AWAY,
)  # fmt: skip


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    types = [type_ for each in operations for type_ in (each.body, each.answer) if type_ is not None]
    schemas, components = msgspec.json.schema_components([*types, ProblemDocument], ref_template=_REF)
    found = dict(zip(map(repr, [*types, ProblemDocument]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, found)
    for path, text in (("/healthz", "The loop turns."), ("/readyz", "Redis answers, and the process is not leaving.")):
        paths[path] = {"get": _probe(path, text)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sendengine", "version": __version__,
            "description": "A bulk send engine that sells speed. Errors are RFC 9457 problem documents with a `remedy`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                kinds[0].name: {
                    "description": "; or: ".join(kind.title for kind in kinds) + ".",
                    "content": {problems.TYPE: {"schema": found[repr(ProblemDocument)]}},
                }
                for kinds in _by_status().values()
            },
            "securitySchemes": {
                "key": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "se_…",
                    "description": "Of an account, or of the operator, made by `sendengine key create`; with one or more of the scopes "
                    + ", ".join(Scope) + ".",
                }
            },
        },
    }  # fmt: skip


def encoded(operations: Sequence[Operation]) -> bytes:
    return orjson.dumps(document(operations), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _by_status() -> dict[int, list[Kind]]:
    found: dict[int, list[Kind]] = {}
    for kind in _ERRORS:
        found.setdefault(kind.status, []).append(kind)
    return found


def _operation(each: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {each.media: {"schema": schemas[repr(each.answer)]}}
    statuses = {str(status): {"description": "Done.", "content": answer} for status in (each.status, *each.others)}
    wrong = {str(status): {"$ref": f"#/components/responses/{kinds[0].name}"} for status, kinds in _by_status().items()}
    said: dict[str, Any] = {
        "operationId": each.name, "summary": each.summary, "parameters": _parameters(each), "responses": statuses | wrong,
    }  # fmt: skip
    if each.scope is None:
        said["security"] = []
    else:
        said |= {"x-scope": each.scope.value, "x-operators": each.operators}
    if each.upload:
        lists = {"type": "string", "description": "One object or row per recipient; `email` is the address, the others are merge fields."}
        said["requestBody"] = {"required": True, "content": {"application/x-ndjson": {"schema": lists}, "text/csv": {"schema": lists}}}
    elif each.body is not None:
        said["requestBody"] = {"required": _is_needed(each.body), "content": {JSON: {"schema": schemas[repr(each.body)]}}}
    return said


def _is_needed(body: Any) -> bool:
    return not isinstance(body, type) or any(field.required for field in msgspec.structs.fields(body))


def _parameters(each: Operation) -> list[dict[str, Any]]:
    names = _path_name.findall(each.path)
    in_path = [Param(name, PATH_PARAMS[name][0], PATH_PARAMS[name][1], "path") for name in names]
    return [
        {"name": param.name, "in": param.place, "description": param.summary, "required": param.place == "path", "schema": param.schema}
        for param in (*in_path, *each.params)
    ]


def _probe(path: str, text: str) -> dict[str, Any]:
    done = {"description": "Yes.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    no = {"description": "No.", "content": {problems.TYPE: {"schema": {"$ref": _REF.format(name="ProblemDocument")}}}}
    return {"operationId": path.strip("/"), "summary": text, "security": [], "responses": {"200": done, "503": no}}


if __name__ == "__main__":
    from sendengine.api.app import OPERATIONS

    sys.stdout.buffer.write(encoded(OPERATIONS))
