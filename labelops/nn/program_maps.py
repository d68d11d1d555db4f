"""Scores of every cell from a torch.export program: its graph is cut where it pools.

A program is a list of operations, so where it pools is read from its end: a linear layer, what only
changes shapes, a mean over rows and columns. What was read wrongly cannot go unnoticed, since the
cells must say on average what the program says.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from labelops.nn.score_maps import score_cells

# N pictures, D features, K classes, h×w cells

AVERAGES = ("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "mean", "avg_pool2d")
SHAPES = (
    *("flatten", "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "clone", "contiguous"),
    *("dropout", "alias", "detach", "_to_copy", "permute", "t", "transpose"),
)
"""Operations that leave values as they are; dropout does, in a program exported in evaluation."""


class ProgramMaps(nn.Module):
    """A program that tells what it sees in every cell.

    Parameters
    ----------
    program
        From `torch.export.export(...).module()`; takes pictures, gives scores (N, K), or features
        if there is a head.
    head
        A linear layer to put behind it. None: the program's own last one.

    Raises
    ------
    ValueError
        If it does not end in "mean over cells, linear", or "mean over cells" where there is a head.

    Examples
    --------
    >>> tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    >>> model, images = nn.Sequential(nn.Conv2d(3, 3, 1), *tail).eval(), torch.zeros(1, 3, 4, 5)
    >>> ProgramMaps(torch.export.export(model, (images,)).module())(images).shape
    torch.Size([1, 2, 4, 5])
    """

    def __init__(self, program: nn.Module, head: nn.Linear | None = None) -> None:
        super().__init__()
        if not isinstance(program, GraphModule):
            raise ValueError(f"program maps: a program was expected, got {type(program).__name__}")
        self.head = head
        output = _only_output(program)
        tail = output if head is not None else _skip_shapes(output)
        weight = bias = None
        if head is None:
            tail, weight, bias = _linear(tail)
        pooled = _skip_shapes(tail)
        if _name(pooled) not in AVERAGES or not isinstance(pooled.args[0], Node):
            raise _refused(f"{_name(pooled)!r} where the mean over cells was expected")
        graph = type(program.graph)()
        places: dict[Node, Any] = {}
        graph.graph_copy(program.graph, places)
        kept = [node for node in (output, pooled.args[0], weight, bias) if node is not None]
        graph.output(tuple(places[node] for node in kept))
        self.cut = GraphModule(program, graph)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of every cell, shape (N, K, h, w).

        Raises
        ------
        ValueError
            If the mean of the cells is not what the program says.
        """
        with torch.no_grad():
            output, cells, *layer = self.cut(images)
            if self.head is not None:
                layer = [self.head.weight, self.head.bias]
                output = self.head(output.flatten(1))
        weight, bias = layer[0], layer[1] if len(layer) > 1 else None
        if cells.dim() != 4 or cells.shape[1] != weight.shape[1]:
            shapes = f"{tuple(cells.shape)} before a layer {tuple(weight.shape)}"
            raise _refused(f"cells of shape {shapes}")
        return score_cells(cells, weight, bias, output.flatten(1))


def _refused(what: str) -> ValueError:
    return ValueError(
        "score maps: a program that ends in a mean over cells and one linear layer was expected, "
        f"got {what}. Transformers without a final mean, networks that flatten their cells, and "
        "layers behind the mean have no score maps"
    )


def _name(node: Node) -> str:
    """Return an operation's name, as ``mean`` of ``aten.mean.dim``."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(getattr(packet, "__name__", node.target))


def _only_output(program: GraphModule) -> Node:
    outputs = next(node for node in program.graph.nodes if node.op == "output").args[0]
    while isinstance(outputs, list | tuple) and len(outputs) == 1:
        outputs = outputs[0]
    if not isinstance(outputs, Node):
        raise _refused("more than one output")
    return outputs


def _skip_shapes(node: Node) -> Node:
    while _name(node) in SHAPES and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _linear(node: Node) -> tuple[Node, Node, Node | None]:
    """Return the input, weight and bias of a linear layer, in either of its spellings."""
    name, args = _name(node), node.args
    if name == "linear":
        return args[0], args[1], args[2] if len(args) > 2 else None  # type: ignore[return-value]
    if name in ("addmm", "mm"):
        bias, features, turned = args if name == "addmm" else (None, *args)
        if isinstance(turned, Node) and _name(turned) in ("permute", "t", "transpose"):
            return features, turned.args[0], bias  # type: ignore[return-value]
    raise _refused(f"{name!r} at the end")
