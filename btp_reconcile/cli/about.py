"""kinds, catalogue, schema, init: what can be written, and where to start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from btp_reconcile import pipeline
from btp_reconcile.cli import talk
from btp_reconcile.core import published, report
from btp_reconcile.core.errors import UsageError
from btp_reconcile.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from btp_reconcile.core.catalogue import Api, Recipe
    from btp_reconcile.core.kind import Kind

FIRST = """\
# yaml-language-server: $schema=https://raw.githubusercontent.com/btp-reconcile/btp-reconcile/main/schemas/spec.schema.json
#
# A first spec. `reconcile validate {file}` checks it, `reconcile plan {file} --sandbox` rehearses it without any
# account, `reconcile plan {file}` asks your subaccounts, `reconcile apply {file}` makes it so.
version: 1
owner: my-team                       # who answers for what this spec makes; stamped on all of it

access:                              # where credentials come from, never the credentials themselves
  central: {{service_key: "${{env:BTP_CIS_CENTRAL_KEY}}"}}     # key of a cis/central instance: entitlements
  cloud_foundry: {{username: "${{env:CF_USER}}", password: "${{env:CF_PASSWORD}}"}}

defaults: {{runtime: cloudfoundry}}

subaccounts:
  prod:
    id: 00000000-0000-4000-8000-000000000000          # the cockpit shows it as the subaccount's ID
    region: eu10
    cloud_foundry: {{org: my-org, space: my-space}}
    instances:
      apim:
        api: api-management                           # `reconcile catalogue` lists the names
        parameters: {{role: APIPortal.Administrator}}   # exactly the role that is needed, and no other
        keys:
          transport: {{rotate_after: 60d}}              # a new key in time; the old one is kept a week longer
    # What content transport calls, built from that key (needs access.destination):
    # destinations:
    #   APIManagement: {{recipe: api-management-transport, key: apim/transport}}
"""


def init(file: str) -> int:
    """A first spec that validates. Never overwrites."""
    if not file.endswith((".yaml", ".yml")):
        raise UsageError(f"{file!r} would not be found as a spec: name it something.yaml")
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(FIRST.format(file=file))
    except FileExistsError:
        raise UsageError(f"{file} exists already; name another file: reconcile init FILE") from None
    talk.lines([("green", f"{file}: written"), ("", f"next: reconcile plan {file} --sandbox")])
    return report.DONE


def kinds(name: str | None, format_: str) -> int:
    """What can be declared."""
    if name is None:
        if format_ == "json":
            talk.data([{"kind": kind.name, "title": kind.title} for kind in KINDS])
        else:
            talk.lines(("", f"{kind.name:<13}{kind.title}") for kind in KINDS)
        return report.DONE
    known = {kind.name: kind for kind in KINDS}
    if name not in known:
        raise UsageError(f"there is no kind {name!r}{talk.nearest(name, known)}")
    if format_ == "json":
        talk.data({"kind": name, "title": known[name].title, "schema": dict(known[name].schema)})
    else:
        talk.lines(_fields(known[name]), wrap=True)
        talk.lines(_examples(known[name].examples))
    return report.DONE


def _fields(kind: Kind) -> Iterable[tuple[str, str]]:
    """What a spec may say of a kind, a line each."""
    yield "bold", kind.title
    shapes = [kind.schema, *kind.schema.get("anyOf", ())]
    for shape in shapes:
        for field, said in shape.get("properties", {}).items():
            yield "", f"  {field:<14}{said.get('description') or _described(said)}"
            needed = said.get("required", ())
            for inner, below in said.get("properties", {}).items():
                needs = "needed. " if inner in needed else ""
                yield "dim", f"    {inner:<20}{needs}{below.get('description') or _described(below)}".rstrip()


def _described(said: Mapping[str, Any]) -> str:
    """What a definition shared by several fields says of itself."""
    name = str(said.get("$ref", "")).rpartition("/")[2]
    found = pipeline.definitions().get(name, {})
    return str(found.get("description", ""))


def _examples(examples: Iterable[str]) -> Iterable[tuple[str, str]]:
    for number, example in enumerate(examples, start=1):
        yield "", ""
        yield "dim", f"# example {number}, an edit of the one before" if number > 1 else "# example 1"
        yield "", example.rstrip()


def catalogue(name: str | None, format_: str) -> int:
    """Which APIs are known by name, and what of them."""
    known = pipeline.shipped_catalogue()
    if name is None:
        if format_ == "json":
            apis = [{"api": api.api, "service": api.service, "plan": api.plan} for api in known.apis]
            talk.data(
                [*apis, *({"recipe": one.name, "services": list(one.services)} for one in known.recipes)]
            )
        else:
            talk.lines(("", f"{api.api:<34}{api.service} / {api.plan}") for api in known.apis)
            talk.lines(
                ("", f"{one.name:<34}a destination, from a key of {' or '.join(one.services)}")
                for one in known.recipes
            )
        return report.DONE
    recipe = known.recipe(name)
    if recipe is not None:
        _show_recipe(recipe, format_)
        return report.DONE
    api = known.named(name)
    if api is None:
        names = [*known.by_name, *(one.name for one in known.recipes)]
        raise UsageError(f"the catalogue has no {name!r}{talk.nearest(name, names)}")
    builds = [one.name for one in known.recipes if api.service in one.services]
    if format_ == "json":
        talk.data(
            {
                "api": api.api,
                "title": api.title,
                "service": api.service,
                "plan": api.plan,
                "protect": api.protect,
                "parameters": dict(api.parameters),
                "replace_on": list(api.replace_on),
                "regions": list(api.regions),
                "consumers": list(api.consumers),
                "recipes": builds,
                "notes": list(api.notes),
            }
        )
    else:
        talk.lines(_about(api, [one for one in known.recipes if one.name in builds]), wrap=True)
    return report.DONE


def _show_recipe(recipe: Recipe, format_: str) -> None:
    """What a recipe builds."""
    if format_ == "json":
        talk.data(
            {
                "recipe": recipe.name,
                "title": recipe.title,
                "services": list(recipe.services),
                "destination": recipe.destination,
                "parameters": dict(recipe.parameters),
                "properties": dict(recipe.properties),
                "own": dict(recipe.own),
                "own_elsewhere": dict(recipe.elsewhere.own),
                "notes": list(recipe.notes),
            }
        )
    else:
        talk.lines(_about_recipe(recipe), wrap=True)


def _about_recipe(recipe: Recipe) -> Iterable[tuple[str, str]]:
    yield "bold", f"{recipe.name}: {recipe.title}"
    yield "", f"  from a key  of {' or '.join(recipe.services)}"
    for name, value in recipe.parameters.items():
        yield "", f"              whose instance has {name} {value}"
    if recipe.destination:
        yield "", f"  called      {recipe.destination}, exactly so"
    for name, text in recipe.properties.items():
        yield "", f"  property    {name}: {text}"
    for name, what in recipe.own.items():
        yield "", f"  needs       {name}: {what}"
    for name, what in recipe.elsewhere.own.items():
        yield "", f"  needs       {name}, if the key is of another subaccount: {what}"
    for text in recipe.notes:
        yield "", f"  note        {text}"


def _about(api: Api, recipes: Sequence[Recipe]) -> Iterable[tuple[str, str]]:
    yield "bold", f"{api.api}: {api.title}"
    yield "", f"  service     {api.service}"
    yield "", f"  plan        {api.plan}"
    yield "", f"  protected   {'yes, unless the spec says protect: false' if api.protect else 'no'}"
    properties: dict[str, Any] = dict(api.parameters.get("properties", {}))
    for parameter, said in properties.items():
        values = ", ".join(str(one) for one in said.get("enum", ()))
        yield "", f"  parameter   {parameter}" + (f": {values}" if values else "")
    if api.replace_on:
        yield "", f"  a new one   when {', '.join(api.replace_on)} changes"
    for recipe in recipes:
        yield "", f"  recipe      {recipe.name}: {recipe.title}"
    for title, texts in (("used by", api.consumers), ("known error", _errors(api)), ("note", api.notes)):
        for text in texts:
            yield "", f"  {title:<11} {text}"
    if api.help:
        yield "dim", f"  help page   {api.help}"


def _errors(api: Api) -> tuple[str, ...]:
    return tuple(f"{one.match!r}: {one.meaning}" for one in api.errors)


def schema(name: str) -> int:
    """The JSON Schema of a spec, or of what is printed and written."""
    talk.document(pipeline.schema_text() if name == "spec" else published.text(name))
    return report.DONE
