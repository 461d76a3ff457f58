"""Who was made from whom, as nested branches that a page can hold."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from datacreate.reporting.tables import TreeNode

DEEPEST = 8  # levels below the formatting example: further in, no line is wide enough
MOST_CHILDREN = 12
LARGEST = 150  # examples on the page, whatever the set holds


@dataclass
class Branch:
    """An example and those made from it."""

    node: TreeNode
    children: list[Branch] = field(default_factory=list)

    @property
    def hidden(self) -> int:
        """Examples made from it that are not shown."""
        return self.node.children - len(self.children)


def lineage(nodes: Sequence[TreeNode], most: int = LARGEST) -> Branch | None:
    """The formatting example and at most `most` examples below it; None of no nodes.

    Taken breadth first; of many children, those that have children themselves come first.
    """
    made: dict[str, list[TreeNode]] = defaultdict(list)
    for node in nodes[1:]:
        if node.parent is not None:
            made[node.parent].append(node)
    if not nodes:
        return None
    root = Branch(nodes[0])
    waiting = deque([(root, 0)])
    while waiting:
        branch, depth = waiting.popleft()
        if depth == DEEPEST:
            continue
        children = sorted(made[branch.node.id], key=lambda child: not child.children)
        for child in children[: min(MOST_CHILDREN, most)]:
            grown = Branch(child)
            branch.children.append(grown)
            waiting.append((grown, depth + 1))
            most -= 1
    return root


def size(branch: Branch) -> int:
    """Examples in a branch, its own root not counted."""
    return sum(1 + size(child) for child in branch.children)
