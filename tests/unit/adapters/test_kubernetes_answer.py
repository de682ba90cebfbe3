"""What filter answers, put together of pieces that are JSON already."""

import msgspec
import pytest

from dhtos.adapters.kubernetes import Filtered, NodeList, _filled

NODES = NodeList([msgspec.Raw(b'{"metadata":{"name":"{}","labels":{}}}')])


@pytest.mark.parametrize("nodes", [None, NODES, NodeList([])])
@pytest.mark.parametrize("names", [None, [], ["n1", "{}", '"FailedNodes":{}']])
@pytest.mark.parametrize("failed", [{}, {"a": "why"}, {"a": "why", "{}": "{}", "b": '"'}])
@pytest.mark.parametrize("never", [{}, {"b": '"'}])
def test_it_is_what_msgspec_would_have_written(nodes, names, failed, never):
    pieces = [[msgspec.json.encode(those)[1:-1]] if those else [] for those in (failed, never)]
    whole = Filtered(
        nodes=nodes,
        node_names=names,
        failed_nodes=failed,
        failed_and_unresolvable_nodes=never,
    )
    assert _filled(Filtered(nodes=nodes, node_names=names), *pieces) == msgspec.json.encode(whole)
