"""The order of stages: who follows whom, cycles, and what stands side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["ancestors", "cycle", "order", "predecessors"]

Edges = Mapping[str, Sequence[str]]


def predecessors(stages: Mapping[str, Sequence[str] | None], recovers: Edges) -> dict[str, tuple[str, ...]]:
    """The direct predecessors of each stage: its `needs`, else the nearest stage above that is no recovery; a recovery
    follows what it covers. Names that do not exist are left out."""
    result: dict[str, tuple[str, ...]] = {}
    above = ""
    for name, needs in stages.items():
        if name in recovers:
            result[name] = tuple(dict.fromkeys(n for n in recovers[name] if n in stages))
            continue
        given = ([above] if above else []) if needs is None else needs
        result[name] = tuple(dict.fromkeys(n for n in given if n in stages))
        above = name
    return result


def cycle(edges: Edges) -> list[str]:
    """One cycle as a path that begins and ends with the same stage, in the direction of the work; [] if there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        waiting = [(start, iter(edges[start]))] if start not in done else []
        path.extend(name for name, _ in waiting)
        while waiting:
            name, rest = waiting[-1]
            following = next(rest, None)
            if following is None:
                done.add(name)
                waiting.pop()
                path.pop()
            elif following in path:
                return [*path[path.index(following) :], following][::-1]
            elif following not in done:
                waiting.append((following, iter(edges[following])))
                path.append(following)
    return []


def order(edges: Edges) -> list[str]:
    """The stages so that each follows what it needs, otherwise as they stand in the file; `edges` holds no cycle."""
    # Kahn's order, stable on spec order: the graph in the UI reads like the YAML.
    left = list(edges)
    placed: dict[str, None] = {}
    while left:
        name = next(n for n in left if all(p in placed for p in edges[n]))
        placed[name] = None
        left.remove(name)
    return list(placed)


def ancestors(edges: Edges) -> dict[str, frozenset[str]]:
    """Everything that is finished before each stage begins, in the order of `order`; `edges` holds no cycle."""
    result: dict[str, frozenset[str]] = {}
    for name in order(edges):
        result[name] = frozenset(edges[name]).union(*(result[p] for p in edges[name]))
    return result
