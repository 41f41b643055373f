"""Shards: parts that are planned and applied apart make what one run over all makes, and what needs all is decided over all."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.landscapes import world
from btp_reconcile import pipeline
from btp_reconcile.core import report
from btp_reconcile.core.model import Action, Status
from btp_reconcile.core.shards import Shard
from tests.worlds import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from btp_reconcile.core.model import Change, Plan, Wanted
    from btp_reconcile.sandbox import Sandbox
    from tests.commands import Desk

PLACES, OF = 400, 16

HEAD = """\
version: 1
owner: finance
name: landscape
access:
  central: {service_key: "${env:A}"}
  cloud_foundry: {username: u, password: "${env:B}"}
defaults: {runtime: cloudfoundry}
templates:
  baseline:
    instances:
      settings: {service: sandbox-config, plan: standard, parameters: {size: 1}, keys: {k: {}}}
subaccounts:
"""


@dataclass
class Ready(Bench):
    """A bench whose subaccounts are made once, whoever plans."""

    opened: Mapping[str, Mapping[str, Any]] | None = None

    def access(self, wanted: Wanted) -> Mapping[str, Mapping[str, Any]]:
        if self.opened is None:
            self.opened = super().access(wanted)
        return self.opened


def guid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def landscape(places: int, changed: str = "", each: int = 1) -> str:
    """So many subaccounts of one template; every so many-th with something of its own."""
    lines = [
        f"  s{number:03}: {{id: {guid(f's{number}')}, region: eu10, use: [baseline], "
        f"cloud_foundry: {{org: org-{number:03}, space: apis}}{changed if number % each == 0 else ''}}}"
        for number in range(places)
    ]
    return HEAD + "\n".join(lines) + "\n"


def in_sync(folder: Path, spec: str) -> Ready:
    """A bench on whose world a spec has been applied."""
    bench = Ready(folder, parallel=8)
    bench.sandbox.seed(world(bench.prepare(bench.write(spec, "before.yaml")).wanted, in_sync=True))
    return bench


def planned(bench: Bench, path: str, shard: Shard | None = None, **options: Any) -> pipeline.Planned:
    world = bench.world()
    policy = bench.policy(**options)
    return pipeline.make_plan(pipeline.prepare([path], world, shard), world, policy)


def applied(bench: Bench, path: str, shard: Shard | None = None, **options: Any) -> tuple[Plan, list[str]]:
    """Plan and carry out: the first plan, and what did not end well."""
    here = bench.world()
    policy = bench.policy(**options)
    found = pipeline.make_plan(pipeline.prepare([path], here, shard), here, policy)
    assert found.plan.objections == ()
    _, reports = pipeline.settle(found, here, policy)
    outcomes = [one for done in reports for one in done.outcomes]
    return found.plan, [f"{one.step.id}: {one.error}" for one in outcomes if one.status is not Status.DONE]


def every(of: int) -> Iterator[Shard]:
    return (Shard(number, of) for number in range(1, of + 1))


def told(changes: Iterator[Change]) -> list[Any]:
    """What is decided about each address, in an order of its own."""
    return sorted(
        (
            str(one.address),
            str(one.action),
            one.generation,
            one.reason,
            [(field.path, str(field.before), str(field.after)) for field in one.fields],
        )
        for one in changes
    )


def steps(plan: Plan) -> list[Any]:
    return sorted((one.id, one.name, tuple(sorted(one.requires))) for one in plan.steps)


def things(sandbox: Sandbox) -> Counter[Any]:
    """Every instance, key and assignment of a world: what it is called, where it is, whose, and how; not since when."""
    found: Counter[Any] = Counter()
    with sandbox.hold() as inside:
        orgs = {guid: row["organization"] for guid, row in inside.table("cf.spaces").items()}
        names = {guid: row["name"] for guid, row in inside.table("cf.organizations").items()}
        instances = inside.table("cf.service_instances")
        where = {guid: (names[orgs[row["space"]]], row["name"]) for guid, row in instances.items()}
        for guid, row in instances.items():
            found[("instance", *where[guid], str(row["tags"]), str(sorted(row["labels"].items())))] += 1
        for row in inside.table("cf.service_credential_bindings").values():
            home = where[row["instance"]]
            found[("key", *home, row["name"], str(sorted(row["labels"].items())))] += 1
        for place, rows in inside.table("entitlements.assignments").items():
            kept = {plan: {**row, "created": None, "modified": None} for plan, row in rows.items()}
            found["entitlements", place, json.dumps(kept, sort_keys=True)] += 1
    return found


# --- the same as one run --------------------------------------------------------------------------------


def test_sixteen_shards_of_400_subaccounts_make_exactly_the_changes_that_one_run_makes(
    tmp_path: Path,
) -> None:
    more = ", instances: {settings: {tags: [blue], keys: {l: {}}}}"
    whole, parts = (in_sync(tmp_path, landscape(PLACES)) for _ in range(2))
    path = whole.write(landscape(PLACES, more, each=5))

    plan, left = applied(whole, path)
    each = [applied(parts, path, shard) for shard in every(OF)]

    assert (left, [one for _, some in each for one in some]) == ([], [])
    assert told(one for part, _ in each for one in part.changes) == told(iter(plan.changes))
    assert sorted(step for part, _ in each for step in steps(part)) == steps(plan)
    assert (len(plan.changes), plan.count(Action.UPDATE), plan.count(Action.CREATE)) == (1280, 80, 80)
    assert things(parts.sandbox) == things(whole.sandbox)


@pytest.mark.soak
def test_sixteen_shards_make_400_subaccounts_from_nothing_as_one_run_does(tmp_path: Path) -> None:
    whole, parts = (Ready(tmp_path, parallel=8) for _ in range(2))
    path = whole.write(landscape(PLACES))

    plan, left = applied(whole, path)
    each = [applied(parts, path, shard) for shard in every(OF)]

    assert (left, [one for _, some in each for one in some]) == ([], [])
    assert told(one for part, _ in each for one in part.changes) == told(iter(plan.changes))
    assert sorted(step for part, _ in each for step in steps(part)) == steps(plan)
    assert (len(plan.changes), plan.count(Action.CREATE)) == (1200, 1200)
    assert things(parts.sandbox) == things(whole.sandbox)


def test_a_subaccount_stays_in_its_shard_whatever_else_there_is(tmp_path: Path) -> None:
    few, many = (landscape(number) for number in (10, 13))
    bench = Ready(tmp_path)
    first, then = bench.write(few, "few.yaml"), bench.write(many, "many.yaml")

    def homes(path: str) -> dict[str, Shard]:
        prepared = [(shard, pipeline.prepare([path], bench.world(), shard)) for shard in every(3)]
        return {name: shard for shard, one in prepared for name in one.wanted.places}

    assert len(homes(first)) == 10
    assert homes(first).items() <= homes(then).items()


def test_a_shard_reads_and_asks_only_about_its_own(tmp_path: Path) -> None:
    bench = in_sync(tmp_path, landscape(30))
    bench.requests()
    shard = Shard(1, 8)

    found = planned(bench, str(tmp_path / "before.yaml"), shard)

    mine = {f"s{number:03}" for number in range(30) if shard.holds(guid(f"s{number}"))}
    assert 0 < len(mine) < 30
    assert {fact.subaccount for fact in found.facts.all} == mine
    assert set(found.prepared.wanted.places) == mine
    assert found.plan.empty


LINKED = """\
version: 1
owner: finance
name: linked
access:
  central: {service_key: "${env:A}"}
  cloud_foundry: {username: u, password: "${env:B}"}
  destination: {service_key: "${env:C}"}
defaults: {runtime: cloudfoundry}
subaccounts:
  giver:
    id: GIVER
    region: eu10
    cloud_foundry: {org: giver, space: apis}
    instances:
      apim:
        api: api-management
        keys: {transport: {rotate_after: 20d, keep_old_for: 3d}}
  taker:
    id: TAKER
    region: eu10
    cloud_foundry: {org: taker, space: apis}
    destinations:
      APIManagement: {recipe: api-management-transport, key: giver/apim/transport}
"""


def linked() -> str:
    """Two subaccounts of two shards, one of which takes a key from the other."""
    names = (f"giver-{number}" for number in range(100))
    giver = next(name for name in names if Shard(1, 2).holds(guid(name)))
    taker = next(f"taker-{number}" for number in range(100) if Shard(2, 2).holds(guid(f"taker-{number}")))
    return LINKED.replace("GIVER", guid(giver)).replace("TAKER", guid(taker))


def test_what_takes_from_another_shards_key_waits_for_it_and_never_touches_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = bench.write(linked())
    giver, taker = every(2)

    early = planned(bench, path, taker).plan
    assert ([one.code for one in early.unseen], early.changes) == (["shard/later"], ())
    assert report.plan_exit(early, detailed=True) == report.PENDING

    assert applied(bench, path, giver)[1] == []
    plan, left = applied(bench, path, taker)
    assert ([str(one.address) for one in plan.changes], left) == (["destination:taker/APIManagement"], [])
    assert bench.plan(path).plan.empty
    assert [planned(bench, path, shard).plan.empty for shard in every(2)] == [True, True]


def test_a_key_of_another_shards_instance_that_moves_is_found_where_it_comes_from(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    here = linked().replace("access:\n", "access:\n  service_manager: {service_key: '${env:D}'}\n", 1)
    there = here.replace("api: api-management", "api: api-management\n        runtime: other")
    assert applied(bench, bench.write(there))[1] == []
    assert applied(bench, bench.write(here))[1] == []
    path = bench.write(there)  # it is to move back, and its newest key is still where it moved to

    _, taker = every(2)

    assert planned(bench, path, taker).plan.empty, "the older key, which will go, is not taken in its place"


def test_a_key_is_not_retired_before_another_shards_consumer_has_the_new_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = bench.write(linked())
    assert applied(bench, path)[1] == []
    giver, taker = every(2)
    bench.advance(20 * 86400)

    rotated, left = applied(bench, path, giver)
    assert ([one.action for one in rotated.changes if one.acts], left) == ([Action.ROTATE], [])
    bench.advance(5 * 86400)
    assert planned(bench, path, giver).plan.empty, (
        "kept as long as the other shard's destination has the old one"
    )
    served, left = applied(bench, path, taker)
    assert ([str(one.address) for one in served.changes if one.acts], left) == (
        ["destination:taker/APIManagement"],
        [],
    )
    dated, _ = applied(bench, path, giver)
    bench.advance(4 * 86400)
    gone, left = applied(bench, path, giver)

    assert [[str(fact.name) for fact in one.dated] for one in dated.changes if one.acts] == [["transport"]]
    assert [[fact.name for fact in one.retired] for one in gone.changes if one.acts] == [["transport"]]
    assert left == []
    assert bench.plan(path).plan.empty


def test_an_org_that_two_subaccounts_of_different_shards_lead_to_is_seen(tmp_path: Path) -> None:
    bench = Ready(tmp_path)
    path = bench.write(landscape(20).replace("org-001", "org-000"))

    codes = {problem.code for shard in every(20) for problem in planned(bench, path, shard).plan.objections}

    assert codes == {"subaccount/same-org"}


# --- what only the whole can decide ---------------------------------------------------------------------

GONE = ", instances: {settings: {ensure: absent}}"


def saved(desk: Desk, of: int, *options: str, name: str = "p") -> list[str]:
    """The plans of all shards, in files."""
    files = []
    for number in range(1, of + 1):
        files.append(f"{name}{number}.json")
        ended = desk.run("plan", "--sandbox", "--shard", f"{number}/{of}", "--out", files[-1], *options)
        assert (ended.code, ended.err) == (0, "")
    return files


@pytest.fixture
def twenty(desk: Desk) -> Desk:
    """A desk whose world has what 20 subaccounts want."""
    desk.write("specs/prod.yaml", landscape(20))
    assert desk.run("apply", "--sandbox", "--yes").code == 0
    return desk


def test_the_plans_of_all_shards_are_put_together_to_the_plan_of_one_run(twenty: Desk) -> None:
    more = ", instances: {settings: {tags: [blue]}}"
    twenty.write("specs/prod.yaml", landscape(20, more, each=2))

    ended = twenty.run("report", "merge", *saved(twenty, 4), "--format", "json")
    words = twenty.run("report", "merge", *(f"p{number}.json" for number in range(1, 5)))

    whole = json.loads(twenty.run("plan", "--sandbox", "--format", "json").out)
    merged = json.loads(ended.out)
    assert ended.code == 0
    assert sorted(map(json.dumps, merged["changes"])) == sorted(map(json.dumps, whole["changes"]))
    for part in (
        "subaccounts",
        "summary",
        "objections",
        "unseen",
        "warnings",
        "unmanaged",
        "specs",
        "forecast",
    ):
        assert merged[part] == whole[part]
    assert words.out == twenty.run("plan", "--sandbox").out


def test_a_share_that_no_shard_can_judge_is_judged_over_the_whole(twenty: Desk) -> None:
    """2 of 40 things go: far below the share; but in one shard they are more than that."""
    twenty.write("specs/prod.yaml", landscape(20, GONE, each=20))
    files = saved(twenty, 12)
    number = next(shard.number for shard in every(12) if shard.holds(guid("s0")))

    alone = twenty.run("apply", f"p{number}.json", "--sandbox")
    merged = twenty.run("report", "merge", *files, "--out", "approved.json")
    approved = twenty.run("apply", f"p{number}.json", "--sandbox", "--approved", "approved.json")

    assert (alone.code, merged.code, approved.code) == (4, 0, 0)
    assert "safety/many-deletions" in alone.out
    assert "Apply: 2 steps done." in approved.out
    assert twenty.run("plan", "--sandbox", "--detailed-exitcode").code == 0


def test_too_much_given_up_over_all_shards_stands_against_each(twenty: Desk) -> None:
    twenty.write("specs/prod.yaml", landscape(20, GONE, each=2))
    files = saved(twenty, 3)

    merged = twenty.run("report", "merge", *files, "--out", "refused.json")
    asked = twenty.run("apply", files[0], "--sandbox", "--approved", "refused.json")
    answered = saved(twenty, 3, "--allow", "many-deletions", name="q")
    allowed = twenty.run("report", "merge", *answered)

    assert (merged.code, asked.code, allowed.code) == (4, 4, 0)
    assert "20 of 40 managed instances and keys would be deleted" in merged.out
    assert "something stands against the whole" in asked.err
    assert twenty.run("show", "refused.json").out == merged.out


def test_quota_is_summed_over_all_shards(desk: Desk) -> None:
    memory = ", entitlements: {APPLICATION_RUNTIME: {MEMORY: 30}}"
    desk.write("specs/prod.yaml", landscape(8, memory))
    whole = json.loads(desk.run("plan", "--sandbox", "--format", "json").out)

    ended = desk.run("report", "merge", *saved(desk, 4), "--format", "json")

    assert [one["code"] for one in whole["objections"]] == ["entitlement/quota"]
    assert (ended.code, json.loads(ended.out)["objections"]) == (4, whole["objections"])


def test_what_are_not_all_parts_of_one_whole_is_answered_in_words(twenty: Desk) -> None:
    files = saved(twenty, 3)
    twenty.run("plan", "--sandbox", "--shard", "1/4", "--out", "fourth.json")
    twenty.run("plan", "--sandbox", "--shard", "2/3", "--at-most", "3", "--out", "options.json")
    twenty.run("plan", "--sandbox", "--out", "whole.json")
    twenty.write("specs/prod.yaml", landscape(19))
    twenty.run("plan", "--sandbox", "--shard", "3/3", "--out", "later.json")

    def said(*plans: str) -> tuple[int, list[str]]:
        ended = twenty.run("report", "merge", *plans)
        return ended.code, [
            line.strip() for line in ended.err.splitlines() if "[plan/shards]" not in line and line
        ]

    assert said(*files[:2]) == (4, ["the plan of shard 3/3 is missing"])
    assert said(*files, files[0]) == (4, ["p1.json and p1.json are both shard 1/3"])
    assert said(*files, "fourth.json") == (4, ["fourth.json is shard 1/4, and p1.json is shard 1/3"])
    assert said(files[0], "options.json", files[2]) == (
        4,
        ["options.json and p1.json were made with different options: at_most"],
    )
    assert said(*files[:2], "later.json") == (4, ["later.json and p1.json are of different specs"])
    assert said("whole.json")[0] == 64
    assert said("specs/prod.yaml")[0] == 64


def test_a_part_that_is_applied_without_the_whole_says_so(twenty: Desk) -> None:
    more = ", instances: {settings: {tags: [blue]}}"
    twenty.write("specs/prod.yaml", landscape(20, more, each=2))
    files = saved(twenty, 2)
    assert twenty.run("report", "merge", *files, "--out", "whole.json").code == 0

    alone = twenty.run("apply", files[0])
    approved = twenty.run("apply", files[1], "--approved", "whole.json")
    nothing = twenty.run("apply", "--shard", "1/2", "--sandbox", "--yes")

    said = "shard 1/2 is applied without --approved: quota and the share of deletions were judged by this part alone"
    assert (alone.code, approved.code, nothing.code) == (0, 0, 0)
    assert alone.err.startswith(said)
    assert "without --approved" not in approved.err + nothing.err


def test_a_plan_that_is_not_the_approved_one_is_refused(twenty: Desk) -> None:
    files = saved(twenty, 2)
    assert twenty.run("report", "merge", *files, "--out", "approved.json").code == 0
    twenty.write("specs/prod.yaml", landscape(20, ", instances: {settings: {tags: [blue]}}"))

    changed = twenty.run("apply", "--sandbox", "--yes", "--shard", "1/2", "--approved", "approved.json")
    unsharded = twenty.run("apply", "--sandbox", "--yes", "--approved", "approved.json")
    itself = twenty.run("apply", "approved.json", "--sandbox")
    other = twenty.run("apply", "--sandbox", "--yes", "--shard", "1/2", "--approved", files[0])

    assert (changed.code, unsharded.code, itself.code, other.code) == (4, 64, 64, 64)
    assert "shard 1/2 would do something else now than was approved" in changed.err
    assert "--approved belongs to a shard" in unsharded.err
    assert "is the sum of all shards" in itself.err
    assert "is no approval" in other.err


# --- the option -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "--shard", "0/3"], "0/3 is no shard: of 3 there are 1/3 to 3/3"),
        (["plan", "--shard", "4/3"], "4/3 is no shard"),
        (["plan", "--shard", "3"], "'3' is no shard: write 3/16, or auto/16"),
        (["plan", "--shard", "auto/3"], "JOB_COMPLETION_INDEX is not set"),
        (["plan", "--shard", "1/3", "--prune"], "--shard leaves out --prune"),
        (["apply", "--yes", "--shard", "1/3", "--prune"], "--shard leaves out --prune"),
        (["drift", "--shard", "x"], "is no shard"),
        (["verify", "--shard", "x"], "is no shard"),
        (["rotate", "--due", "--yes", "--shard", "x"], "is no shard"),
    ],
)
def test_a_shard_that_is_none_is_wrong_usage(desk: Desk, arguments: list[str], said: str) -> None:
    ended = desk.run(*arguments, "--sandbox")

    assert ended.code == 64
    assert said in ended.err


def test_an_indexed_job_says_which_shard_it_is_counted_from_0(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("specs/prod.yaml", landscape(6))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")

    by_index = desk.run("plan", "--sandbox", "--shard", "auto/4")

    assert (by_index.code, by_index.out) == (0, desk.run("plan", "--sandbox", "--shard", "3/4").out)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "4")
    assert desk.run("plan", "--sandbox", "--shard", "auto/4").code == 64


def test_drift_verify_and_rotate_keep_to_their_shard(twenty: Desk) -> None:
    mine = [f"s{number:03}" for number in range(20) if Shard(1, 4).holds(guid(f"s{number}"))]

    drift = json.loads(twenty.run("drift", "--sandbox", "--shard", "1/4", "--format", "json").out)
    tried = json.loads(twenty.run("verify", "--sandbox", "--shard", "1/4", "--format", "json").out)
    named = twenty.run("rotate", f"key:{mine[0]}/settings/k", "--sandbox", "--yes", "--shard", "1/4")
    others = twenty.run("rotate", f"key:{mine[0]}/settings/k", "--sandbox", "--yes", "--shard", "2/4")

    assert sorted(drift["subaccounts"]) == mine
    assert sorted(one["address"] for one in tried["keys"]) == [f"key:{name}/settings/k" for name in mine]
    assert (named.code, "1 to rotate" in named.out) == (0, True)
    assert (others.code, "Nothing is due" in others.out) == (0, True)
