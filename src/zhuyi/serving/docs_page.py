"""The page at `/docs`: every route of the OpenAPI document, with nothing from elsewhere and no script."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from zhuyi.visualize.web_page import STILL_POLICY

router = APIRouter(include_in_schema=False)

KINDS = {"application/json": "JSON", "application/x-www-form-urlencoded": "form", "multipart/form-data": "upload"}
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>zhuyi: what can be asked</title>
<link rel="icon" href="page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page/style.css">
<link rel="stylesheet" href="page/docs.css">
</head>
<body>
<main>
"""


@router.api_route("/docs", methods=["GET", "HEAD"])
def docs(request: Request) -> HTMLResponse:
    """All routes, what they take and what they answer."""
    document = request.app.openapi()
    intro = (
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"
        '<p>Everything that this server can be asked; for programs the same is in <a href="openapi.json">'
        'openapi.json</a>. The page to use it by hand is <a href="./">here</a>.</p>'
    )
    return HTMLResponse(
        HEAD + intro + "\n".join(_operations(document)) + "\n</main>\n</body>\n</html>\n",
        headers={"Content-Security-Policy": STILL_POLICY, "X-Content-Type-Options": "nosniff"},
    )


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document.get("paths", {}).items():
        for method, operation in methods.items():
            yield f'<section class="card"><h2><code>{method.upper()} {escape(path)}</code></h2>'
            yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
            rows = [
                (each["name"], each["in"], each.get("schema", {}), each.get("required", False))
                for each in operation.get("parameters", ())
            ]
            rows += _properties(operation.get("requestBody", {}).get("content", {}), document)
            if rows:
                yield "<table><thead><tr><th>Name</th><th>In</th><th>Value</th><th></th></tr></thead><tbody>"
                yield from (_row(*row, document) for row in rows)
                yield "</tbody></table>"
            answers = (
                f"<li><code>{escape(status)}</code> {escape(answer.get('description', ''))}</li>"
                for status, answer in sorted(operation.get("responses", {}).items())
            )
            yield f"<ul>{''.join(answers)}</ul></section>"


def _properties(content: dict[str, Any], document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any], bool]]:
    """The fields of a body, whatever kinds of body may hold them."""
    kinds: dict[str, list[str]] = {}
    fields: dict[str, tuple[dict[str, Any], bool]] = {}
    for kind, body in content.items():
        schema = _resolved(body.get("schema", {}), document)
        for name, field in schema.get("properties", {}).items():
            kinds.setdefault(name, []).append(KINDS.get(kind, kind))
            fields.setdefault(name, (field, name in schema.get("required", ())))
    return [(name, ", ".join(kinds[name]), *field) for name, field in fields.items()]


def _row(name: str, where: str, schema: dict[str, Any], required: bool, document: dict[str, Any]) -> str:
    text = schema.get("description") or _resolved(schema, document).get("description", "")
    default = f" = {schema['default']}" if schema.get("default") not in (None, "") else ""
    value = f"{_type(schema, document)}{default}" + (f": {text}" if text else "")
    return (
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td><td>{escape(value)}</td>"
        f"<td>{'required' if required else ''}</td></tr>"
    )


def _type(schema: dict[str, Any], document: dict[str, Any]) -> str:
    schema = _resolved(schema, document)
    if choices := schema.get("enum"):
        return " | ".join(map(str, choices))
    for key in ("anyOf", "oneOf", "allOf"):
        if parts := schema.get(key):
            return " | ".join(dict.fromkeys(_type(part, document) for part in parts))
    kind = str(schema.get("type", "any value"))
    return f"list of {_type(schema['items'], document)}" if kind == "array" and "items" in schema else kind


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where another place holds it."""
    reference = schema.get("$ref")
    if not reference:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found
