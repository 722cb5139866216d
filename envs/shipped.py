"""The shipped mazes: pictures, episode limits, and which passages are demonstrated and which are held out."""

from __future__ import annotations

from typing import Literal

Cell = tuple[int, int]
Split = Literal["demonstrated", "held_out"]
Passage = tuple[str, Split, Cell, Cell]
"""(family, split, start cell, goal cell)."""

PICTURES: dict[str, list[str]] = {
    "cross": [
        "#########",
        "####.####",
        "####.####",
        "####.####",
        "#.......#",
        "####.####",
        "####.####",
        "####.####",
        "#########",
    ],
    "hash": [
        "###########",
        "###.###.###",
        "###.###.###",
        "#.........#",
        "###.###.###",
        "###.###.###",
        "###.###.###",
        "#.........#",
        "###.###.###",
        "###.###.###",
        "###########",
    ],
    "tee": [
        "#########",
        "#.......#",
        "####.####",
        "####.####",
        "####.####",
        "#########",
    ],
    # Between its rails lies a wall: a plan that goes down one rail and jumps to the other is caught behind it.
    "ladder": [
        "#######",
        "#.###.#",
        "#.###.#",
        "#.....#",
        "#.###.#",
        "#.###.#",
        "#.###.#",
        "#.###.#",
        "#.....#",
        "#.###.#",
        "#.###.#",
        "#######",
    ],
    # Its long walls lie between one row and the next: a plan that leaves a row early is caught behind them.
    "serpentine": [
        "#######",
        "#.....#",
        "#####.#",
        "#.....#",
        "#.#####",
        "#.....#",
        "#######",
    ],
    # Between two teeth lies a wall as long as a tooth: a plan that ends in the wrong tooth is caught there.
    "comb": [
        "#########",
        "#.#.#.#.#",
        "#.#.#.#.#",
        "#.#.#.#.#",
        "#.......#",
        "#########",
    ],
    "umaze": [
        "#####",
        "#...#",
        "###.#",
        "#...#",
        "#####",
    ],
    "medium": [
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#..#",
        "########",
    ],
    "large": [
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ],
    "ogbench-giant": [
        "################",
        "#.#......##....#",
        "#.#.##.#.#..##.#",
        "#...#..#...#...#",
        "#.###.######.#.#",
        "#...#...#....#.#",
        "###.#.#..#.#.###",
        "#...#..#...#...#",
        "#.#.#.######.#.#",
        "#.###...#...##.#",
        "#.....#...#....#",
        "################",
    ],
}
PICTURES |= {f"ogbench-{size}": PICTURES[size] for size in ("medium", "large")}

EPISODE_LIMITS = {
    "cross": 400,
    "hash": 400,
    "tee": 400,
    "ladder": 400,
    "serpentine": 400,
    "comb": 400,
    "umaze": 300,
    "medium": 600,
    "large": 800,
    "ogbench-medium": 1000,
    "ogbench-large": 1000,
    "ogbench-giant": 1000,
}

# Both directions of each passage are demonstrated.
STRAIGHT_ENDS: dict[str, list[tuple[Cell, Cell]]] = {
    "cross": [((4, 1), (4, 7)), ((1, 4), (7, 4))],
    "hash": [((3, 1), (3, 9)), ((7, 1), (7, 9)), ((1, 3), (9, 3)), ((1, 7), (9, 7))],
    "tee": [((1, 1), (1, 7)), ((4, 4), (1, 4))],
    "ladder": [((1, 1), (10, 1)), ((1, 5), (10, 5)), ((3, 1), (3, 5)), ((8, 1), (8, 5))],
}

TURNS: dict[str, list[tuple[Cell, Cell]]] = {
    "cross": [
        ((4, 1), (1, 4)),
        ((4, 1), (7, 4)),
        ((4, 7), (1, 4)),
        ((4, 7), (7, 4)),
        ((1, 4), (4, 1)),
        ((1, 4), (4, 7)),
        ((7, 4), (4, 1)),
        ((7, 4), (4, 7)),
    ],
    # One turn under the square's eight symmetries: straight over the near crossing, turn at the far one.
    "hash": [
        ((3, 1), (1, 7)),
        ((7, 1), (9, 7)),
        ((3, 9), (1, 3)),
        ((7, 9), (9, 3)),
        ((1, 3), (7, 1)),
        ((1, 7), (7, 9)),
        ((9, 3), (3, 1)),
        ((9, 7), (3, 9)),
    ],
    "tee": [((1, 1), (4, 4)), ((1, 7), (4, 4)), ((4, 4), (1, 1)), ((4, 4), (1, 7))],
}

DOUBLE_TURNS: dict[str, list[tuple[Cell, Cell]]] = {
    "hash": [((3, 1), (7, 9)), ((1, 7), (9, 3)), ((3, 9), (7, 1)), ((9, 7), (1, 3))],
}

RETURN_ENDS: dict[str, list[Cell]] = {
    "cross": [(4, 1), (1, 4), (4, 7), (7, 4)],
    "hash": [(3, 1), (1, 7), (7, 9), (9, 3)],
    "tee": [(1, 1), (1, 7), (4, 4)],
}

# Pieces of up to 8 m that overlap, and ways that no piece covers; both directions of each.
PIECES: dict[str, list[tuple[Cell, Cell]]] = {
    "serpentine": [((1, 1), (3, 3)), ((1, 5), (5, 1)), ((3, 3), (5, 5))],
    "comb": [((1, 1), (1, 3)), ((1, 3), (1, 5)), ((1, 5), (1, 7)), ((4, 1), (4, 7))],
}
NEAR: dict[str, list[tuple[Cell, Cell]]] = {
    "ladder": [((1, 1), (1, 5)), ((10, 1), (10, 5))],
    "serpentine": [((1, 2), (3, 2)), ((3, 4), (5, 4))],
    "comb": [((1, 1), (4, 5)), ((1, 7), (4, 3))],
}
"""No longer than a demonstration: from one into the next."""
FAR: dict[str, list[tuple[Cell, Cell]]] = {
    "ladder": [((1, 1), (10, 5)), ((1, 5), (10, 1))],
    "serpentine": [((1, 1), (5, 1)), ((1, 3), (5, 3)), ((1, 5), (5, 5)), ((1, 1), (5, 5))],
    "comb": [((1, 1), (1, 5)), ((1, 3), (1, 7)), ((1, 1), (1, 7))],
}
"""Longer than every demonstration."""

# Their demonstrations (recipe "navigate") cover the whole maze, so nothing is held out; the recipe "stitch" has splits
# of its own, see maps.stitched. They hold the five tasks of OGBench's medium and large maps, whose cells are these.
NAVIGATE: dict[str, list[tuple[Cell, Cell]]] = {
    "umaze": [
        ((1, 1), (3, 1)),
        ((3, 1), (1, 1)),
        ((1, 1), (3, 2)),
        ((3, 1), (1, 2)),
        ((1, 2), (3, 2)),
        ((1, 1), (3, 3)),
        ((3, 1), (1, 3)),
    ],
    "medium": [
        ((1, 1), (6, 6)),
        ((6, 6), (1, 1)),
        ((6, 1), (1, 6)),
        ((1, 6), (6, 1)),
        ((6, 5), (6, 1)),
        ((2, 6), (1, 1)),
        ((5, 3), (4, 2)),
    ],
    "large": [
        ((1, 1), (7, 10)),
        ((7, 10), (1, 1)),
        ((5, 4), (7, 1)),
        ((7, 4), (1, 10)),
        ((1, 10), (7, 1)),
        ((3, 8), (5, 4)),
        ((1, 1), (5, 4)),
    ],
}

OGBENCH_TASKS: dict[str, list[tuple[Cell, Cell]]] = {
    "ogbench-medium": [
        ((1, 1), (6, 6)),
        ((6, 1), (1, 6)),
        ((5, 3), (4, 2)),
        ((6, 5), (6, 1)),
        ((2, 6), (1, 1)),
    ],
    "ogbench-large": [
        ((1, 1), (7, 10)),
        ((5, 4), (7, 1)),
        ((7, 4), (1, 10)),
        ((3, 8), (5, 4)),
        ((1, 1), (5, 4)),
    ],
    "ogbench-giant": [
        ((1, 1), (10, 14)),
        ((1, 14), (10, 1)),
        ((8, 14), (1, 1)),
        ((8, 3), (5, 12)),
        ((5, 9), (3, 8)),
    ],
}
"""OGBench's tasks 1 to 5, in this order, on the maps of its pointmaze. Its demonstrations are of four cells."""


def tasks_of(name: str) -> list[Passage]:
    """All tasks of a shipped map, the demonstrated ones first."""
    passages: list[Passage] = []
    both_ways: tuple[tuple[str, Split, dict[str, list[tuple[Cell, Cell]]]], ...] = (
        ("straight", "demonstrated", STRAIGHT_ENDS),
        ("piece", "demonstrated", PIECES),
        ("near", "held_out", NEAR),
        ("far", "held_out", FAR),
    )
    for family, split, ends in both_ways:
        for one, other in ends.get(name, []):
            passages += [(family, split, one, other), (family, split, other, one)]
    passages += [(f"task{number}", "held_out", *pair) for number, pair in enumerate(OGBENCH_TASKS.get(name, []), 1)]
    passages += [("navigate", "demonstrated", *pair) for pair in NAVIGATE.get(name, [])]
    passages += [("turn", "held_out", *pair) for pair in TURNS.get(name, [])]
    passages += [("double-turn", "held_out", *pair) for pair in DOUBLE_TURNS.get(name, [])]
    passages += [("return", "held_out", end, end) for end in RETURN_ENDS.get(name, [])]
    return passages
