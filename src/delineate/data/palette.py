"""Colours of classes."""

from __future__ import annotations

from collections.abc import Sequence

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

BACKGROUND_NAMES = frozenset(
    {"background", "bg", "backdrop", "none", "nothing", "other", "rest", "unlabeled", "unlabelled"}
)
"""What people call the class of everything that is nothing else: lower case, letters only."""

# Okabe and Ito, Color Universal Design (2008): told apart with the common colour deficiencies.
# Their black is left for the background.
_OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_BACKGROUND: Colour = (0, 0, 0)


def is_background(name: str) -> bool:
    """Whether a class called ``name`` is the one of everything that is nothing else."""
    return "".join(letter for letter in name.lower() if letter.isalpha()) in BACKGROUND_NAMES


def voc_colours(k: int) -> tuple[Colour, ...]:
    """The first ``k`` colours of the PASCAL VOC colour map (VOCcolormap.m of its devkit).

    The bits of the id are dealt out to red, green and blue in turn, the highest first.
    """
    return tuple(_voc_colour(index) for index in range(k))


def default_colours(k: int, classes: Sequence[str] = ()) -> tuple[Colour, ...]:
    """``k`` colours that differ from each other.

    Up to seven (eight with a background) are those of Okabe and Ito, which colour-blind people
    tell apart; more come from the VOC colour map.

    Args:
        k: how many.
        classes: names of the classes; a first one that is called background or so becomes black.
            Left out, the first colour is black as well, as background comes first by custom.
    """
    with_background = not classes or is_background(classes[0])
    few = (_BACKGROUND, *_OKABE_ITO) if with_background else _OKABE_ITO
    if k <= len(few):
        return few[:k]
    taken = set(few)
    more: list[Colour] = []
    index = 1
    while len(few) + len(more) < k:
        colour = _voc_colour(index)
        if colour not in taken:
            more.append(colour)
            taken.add(colour)
        # beyond 2**24 ids the map repeats itself; 65536 classes are the most there can be
        index += 1
    return (*few, *more)


def _voc_colour(index: int) -> Colour:
    red = green = blue = 0
    shift = 7
    while index and shift >= 0:
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
        shift -= 1
    return red, green, blue
