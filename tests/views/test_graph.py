"""What depends on what, drawn three ways: the same nodes and arrows, whatever their names."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

import pydot
import pytest

from btp_reconcile import pipeline
from btp_reconcile.core.report import printable
from btp_reconcile.views import graph
from tests.views.plans import HOSTILE, change, every_action, hostile, large, plan
from tests.worlds import ROOT

SVG = "{http://www.w3.org/2000/svg}"
APIM = "apimanagement-apiportal/apiportal-apiaccess"


def chain(*needs: tuple[str, list[str]]) -> graph.Graph:
    return graph.of_plan(plan(*(change(address, needs=needed) for address, needed in needs)))


def test_a_plan_has_its_arrows_from_what_is_needed() -> None:
    drawn = graph.of_plan(every_action())

    assert drawn.edges == (
        (f"entitlement:prod/{APIM}", "instance:prod/apim"),
        ("instance:prod/apim", "key:prod/apim/transport"),
        ("instance:prod/apim", "key:prod/apim/old"),
        ("instance:prod/apim", "key:prod/apim/pipeline"),
        ("key:prod/apim/transport", "delivery:prod/apim/transport/store"),
        ("key:prod/apim/transport", "destination:prod/APIManagement"),
        ("entitlement:test/afc-api-service/standard", "instance:test/afc"),
        ("instance:test/afc", "key:test/afc/task-center"),
        ("key:prod/apim/transport", "destination:test/APIManagement"),
    )
    assert [node.words for node in drawn.nodes][:3] == [
        "= in sync entitlement",
        "+ create entitlement",
        "± replace instance",
    ]


def test_specs_alone_are_enough_and_nothing_from_outside_is_read() -> None:
    drawn = graph.of_wanted(pipeline.sketch([str(ROOT / "specs/transport.yaml")]))

    assert {need: [b for a, b in drawn.edges if a == need] for need, _ in drawn.edges} == {
        f"entitlement:source/{APIM}": ["instance:source/apim"],
        "entitlement:source/afc-api-service/standard": ["instance:source/afc-api"],
        "instance:source/apim": ["key:source/apim/transport"],
        "instance:source/afc-api": ["key:source/afc-api/task-center"],
        "key:source/apim/transport": [
            "delivery:source/apim/transport/store",
            "delivery:source/apim/transport/pipeline",
            "destination:source/APIManagement",
        ],
        "key:source/afc-api/task-center": ["destination:source/AdvancedFinancialClosing"],
    }
    assert {node.said for node in drawn.nodes} == {""}


def test_an_arrow_that_follows_from_others_is_left_out() -> None:
    drawn = chain(
        ("instance:a/i", []),
        ("key:a/i/k", ["instance:a/i"]),
        ("destination:a/d", ["instance:a/i", "key:a/i/k"]),
    )

    assert drawn.edges == (("instance:a/i", "key:a/i/k"), ("key:a/i/k", "destination:a/d"))


def test_a_circle_and_an_unknown_need_are_drawn_all_the_same() -> None:
    drawn = chain(
        ("key:a/i/k", ["key:a/i/l"]),
        ("key:a/i/l", ["key:a/i/k"]),
        ("key:a/i/m", ["key:gone/i/k", "key:a/i/m"]),
    )

    assert {node.address for node in drawn.nodes} == {"key:a/i/k", "key:a/i/l", "key:a/i/m"}
    assert ET.fromstring(graph.svg(drawn)).tag == f"{SVG}svg"


# --- Mermaid and DOT ------------------------------------------------------------------------------------


def test_mermaid_has_a_line_for_each_node_and_arrow() -> None:
    drawn = chain(("instance:a/i", []), ("key:a/i/k", ["instance:a/i"]), ("key:b/i/k", ["instance:a/i"]))

    assert (
        graph.mermaid(drawn)
        == """\
flowchart LR
  subgraph s0["a"]
    n0["#43; create instance<br/>i"]
    n1["#43; create key<br/>i#47;k"]
  end
  subgraph s1["b"]
    n2["#43; create key<br/>i#47;k"]
  end
  n0 --> n1
  n0 --> n2
  classDef create fill:#dafbe1,stroke:#116329,color:#116329
  class n0,n1,n2 create
"""
    )


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_in_mermaid_a_name_is_letters_digits_and_numbers_of_characters(text: str) -> None:
    labels = re.findall(r'\["(.*)"\]', graph.mermaid(graph.of_plan(hostile(text))))

    assert len(labels) == 5
    for label in labels:
        assert re.fullmatch(r"(?:[A-Za-z0-9 ]|#\d+;|<br/>)+", label)
    told = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), "".join(labels))
    assert printable(text.partition("/")[2] or text) in told


@pytest.mark.filterwarnings(
    "ignore:.*deprecated:DeprecationWarning"
)  # pydot calls pyparsing by its old names
@pytest.mark.parametrize("data", [every_action(), large(200), *map(hostile, HOSTILE)], ids=lambda _: "plan")
def test_graphviz_reads_the_same_nodes_and_arrows(data: dict[str, Any]) -> None:
    drawn = graph.of_plan(data)
    (read,) = pydot.graph_from_dot_data(graph.dot(drawn)) or [pydot.Dot()]
    nodes = [node for cluster in read.get_subgraphs() for node in cluster.get_nodes()]
    tips = {node.get_name(): plain(node.get("tooltip")) for node in nodes}
    arrows = {(tips[str(edge.get_source())], tips[str(edge.get_destination())]) for edge in read.get_edges()}

    assert sorted(tips.values()) == sorted(printable(node.address) for node in drawn.nodes)
    assert arrows == {(printable(need), printable(one)) for need, one in drawn.edges}


def plain(quoted: Any) -> str:
    return re.sub(r"\\(.)", r"\1", str(quoted)[1:-1])


# --- SVG ------------------------------------------------------------------------------------------------


def boxes(group: ET.Element) -> dict[str, tuple[float, float, float, float]]:
    """Title → left, top, right, bottom."""
    found = {}
    for node in group.iter(f"{SVG}g"):
        title, rect = node.find(f"{SVG}title"), node.find(f"{SVG}rect")
        if title is not None and rect is not None:
            x, y, width, height = (float(rect.attrib[one]) for one in ("x", "y", "width", "height"))
            found[str(title.text)] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("data", [every_action(), large(500)], ids=["every action", "large"])
def test_in_the_picture_nothing_covers_anything_and_arrows_lead_to_the_right(data: dict[str, Any]) -> None:
    drawn = graph.of_plan(data)
    picture = ET.fromstring(graph.svg(drawn))
    right, bottom = float(picture.attrib["width"]), float(picture.attrib["height"])
    groups = list(picture.findall(f"{SVG}g"))
    clusters = dict(drawn.clusters())

    assert len(groups) == len(clusters)
    for group, (name, cluster) in zip(groups, clusters.items(), strict=True):
        placed = boxes(group)
        assert set(placed) == {node.address for node in cluster.nodes}
        for one, other in combinations(placed.values(), 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for need, by in cluster.edges:
            assert placed[need][2] < placed[by][0], name
        assert max(box[2] for box in placed.values()) <= right
        assert max(box[3] for box in placed.values()) <= bottom


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_in_the_picture_a_name_is_text(text: str) -> None:
    drawn = graph.of_plan(hostile(text))
    picture = ET.fromstring(graph.svg(drawn))
    tags = {element.tag.removeprefix(SVG) for element in picture.iter()}
    titles = {element.text for element in picture.iter(f"{SVG}title")}

    assert tags <= {"svg", "style", "g", "title", "rect", "text", "path"}
    assert printable(f"instance:prod/{text}") in titles


def test_long_names_are_shortened_and_told_whole_in_the_title() -> None:
    name = "名" * 30 + "x" * 30
    picture = ET.fromstring(graph.svg(chain((f"instance:prod/{name}", []))))
    texts = [element.text for element in picture.iter(f"{SVG}text")]

    assert texts == ["prod", "+ create instance", "名" * 22 + "…"]
    assert [one.text for one in picture.iter(f"{SVG}title")] == [f"instance:prod/{name}"]


def test_what_is_needed_elsewhere_is_shown_with_its_subaccount() -> None:
    drawn = graph.inline(
        dict(graph.of_plan(every_action()).clusters())["test"], "test", {"key:prod/apim/transport": "c4"}
    )

    assert '<a class="node rotate elsewhere" href="#c4" aria-label="rotate key:prod/apim/transport">' in drawn
    assert ">prod/apim/transport</text>" in drawn


def test_the_same_plan_gives_the_same_picture() -> None:
    assert graph.svg(graph.of_plan(large(100))) == graph.svg(graph.of_plan(large(100)))
