"""Cut a graph down to the outputs that were asked for.

ONNX Runtime runs every node that the file holds, wanted or not.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx


def prune(model: onnx.ModelProto, outputs: Collection[str]) -> onnx.ModelProto:
    """A copy of ``model`` with only ``outputs`` and what they need; the inputs stay."""
    graph = model.graph
    needed = set(outputs)  # never "", which stands for an input or output that is left out
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # a graph lists producers before consumers
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed.update(_reads(node))
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    for field, items in (
        ("node", kept[::-1]),
        ("output", [value for value in graph.output if value.name in outputs]),
        ("initializer", [tensor for tensor in graph.initializer if tensor.name in needed]),
        (
            "sparse_initializer",
            [tensor for tensor in graph.sparse_initializer if tensor.values.name in needed],
        ),
        ("value_info", [value for value in graph.value_info if value.name in needed]),
    ):
        target = getattr(pruned.graph, field)
        del target[:]
        target.extend(items)
    return pruned


def _reads(node: onnx.NodeProto) -> set[str]:
    """Every name that ``node`` or its subgraphs read."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                names |= _reads(inner)
            names.update(value.name for value in graph.output)
    return names - {""}
