"""The shipped mazes: pictures, episode limits, and which passages are demonstrated and which are held out."""

from __future__ import annotations

from typing import Literal

Cell = tuple[int, int]
Passage = tuple[str, Literal["demonstrated", "held_out"], Cell, Cell]
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
}

EPISODE_LIMITS = {"cross": 400, "hash": 400, "tee": 400, "umaze": 300, "medium": 600, "large": 800}

# Both directions of each passage are demonstrated.
STRAIGHT_ENDS: dict[str, list[tuple[Cell, Cell]]] = {
    "cross": [((4, 1), (4, 7)), ((1, 4), (7, 4))],
    "hash": [((3, 1), (3, 9)), ((7, 1), (7, 9)), ((1, 3), (9, 3)), ((1, 7), (9, 7))],
    "tee": [((1, 1), (1, 7)), ((4, 4), (1, 4))],
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

# Their demonstrations (recipe "navigate") cover the whole maze, so nothing is held out.
NAVIGATE: dict[str, list[tuple[Cell, Cell]]] = {
    "umaze": [((1, 1), (3, 1)), ((3, 1), (1, 1)), ((1, 2), (3, 2)), ((1, 1), (3, 3)), ((3, 1), (1, 3))],
    "medium": [
        ((1, 1), (6, 6)),
        ((6, 6), (1, 1)),
        ((6, 1), (1, 6)),
        ((1, 6), (6, 1)),
        ((6, 5), (6, 1)),
        ((2, 6), (1, 1)),
    ],
    "large": [
        ((1, 1), (7, 10)),
        ((7, 10), (1, 1)),
        ((5, 4), (7, 1)),
        ((7, 4), (1, 10)),
        ((1, 10), (7, 1)),
        ((3, 8), (5, 4)),
    ],
}


def tasks_of(name: str) -> list[Passage]:
    """All tasks of a shipped map, the demonstrated ones first."""
    straight = STRAIGHT_ENDS.get(name, [])
    passages: list[Passage] = []
    for one, other in straight:
        passages += [("straight", "demonstrated", one, other), ("straight", "demonstrated", other, one)]
    passages += [("navigate", "demonstrated", *pair) for pair in NAVIGATE.get(name, [])]
    passages += [("turn", "held_out", *pair) for pair in TURNS.get(name, [])]
    passages += [("double-turn", "held_out", *pair) for pair in DOUBLE_TURNS.get(name, [])]
    passages += [("return", "held_out", end, end) for end in RETURN_ENDS.get(name, [])]
    return passages
