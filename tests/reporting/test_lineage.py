"""Who was made from whom: bounded, and what is left out is counted."""

from __future__ import annotations

from datacreate.reporting.lineage import DEEPEST, LARGEST, MOST_CHILDREN, Branch, lineage, size
from datacreate.reporting.tables import TreeNode


def chain(length: int) -> list[TreeNode]:
    return [
        TreeNode(f"n{n}", f"n{n - 1}" if n else None, n, None, "text", int(n < length)) for n in range(length)
    ]


def depth(branch: Branch) -> int:
    return 1 + max((depth(child) for child in branch.children), default=-1)


def test_a_wide_tree_is_cut_and_shows_parents_first() -> None:
    root = TreeNode("root", None, 0, None, "text", 900)
    leaves = [TreeNode(f"n{n}", "root", 1, None, "text", int(n == 700)) for n in range(900)]
    tree = lineage([root, *leaves, TreeNode("last", "n700", 2, None, "text", 0)])
    assert tree
    assert tree.children[0].node.id == "n700"
    assert [child.node.id for child in tree.children[0].children] == ["last"]
    assert size(tree) + tree.hidden == 901
    assert lineage([]) is None


def test_a_long_chain_is_cut_and_says_how_much_is_below() -> None:
    tree = lineage(chain(400))
    assert tree
    assert depth(tree) == size(tree) == DEEPEST
    last = tree
    while last.children:
        last = last.children[0]
    assert last.hidden == 1


def test_a_bushy_tree_is_cut_to_size() -> None:
    root = TreeNode("root", None, 0, None, "text", 40)
    twigs = [TreeNode(f"n{n}", "root", 1, None, "text", 40) for n in range(40)]
    leaves = [TreeNode(f"{twig.id}-{n}", twig.id, 2, None, "text", 0) for twig in twigs for n in range(40)]
    tree = lineage([root, *twigs, *leaves])
    assert tree
    assert len(tree.children) == MOST_CHILDREN
    assert size(tree) == LARGEST
    small = lineage([root, *twigs, *leaves], most=5)
    assert small
    assert (size(small), small.hidden) == (5, 35)
