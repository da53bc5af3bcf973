"""What only shows when pairs are compared: copies, contradictions, groups, classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from delineate.data.checks.findings import Finding, below
from delineate.data.checks.listing import Pair
from delineate.data.checks.near import near_duplicates
from delineate.data.checks.pair import Seen
from delineate.data.dataset import INFO_FILE, DatasetInfo

_REMOVE = "Remove one of them: a score on an image that was trained on flatters."


def mixed_types(root: Path, pairs: Sequence[Pair], seen: Sequence[Seen]) -> list[Finding]:
    """Images that cannot go into one model with the rest (grey can go with three channels)."""
    kinds = Counter(
        (3 if s.image.channels == 1 else s.image.channels, s.image.dtype)
        for s in seen
        if s.image is not None
    )
    if len(kinds) < 2:
        return []
    (channels, dtype), _ = kinds.most_common(1)[0]
    return [
        Finding(
            "pixel type",
            below(root, pair.sample.image),
            f"has {s.image.channels} x {s.image.dtype}, and most images have {channels} x {dtype} "
            "(channels x type)",
            "Convert it: one model takes one kind of pixels.",
        )
        for pair, s in zip(pairs, seen, strict=True)
        if s.image is not None
        and ((3 if s.image.channels == 1 else s.image.channels), s.image.dtype) != (channels, dtype)
    ]


def same_images(root: Path, pairs: Sequence[Pair], seen: Sequence[Seen]) -> list[Finding]:
    """Images with the same pixels: in two splits, or with two masks anywhere."""
    first: dict[bytes, int] = {}
    findings = []
    for index, (pair, result) in enumerate(zip(pairs, seen, strict=True)):
        if result.image is None:
            continue
        at = first.setdefault(result.image.digest, index)
        other, name = pairs[at], below(root, pairs[at].sample.image)
        if other.split != pair.split:
            found = f"has the same pixels as {name}"
            findings.append(Finding("same image", below(root, pair.sample.image), found, _REMOVE))
        digests = (seen[at].mask_digest, result.mask_digest)
        if None not in digests and digests[0] != digests[1]:
            findings.append(
                Finding(
                    "two labels",
                    below(root, pair.sample.image),
                    f"has the same pixels as {name} and another mask",
                    "Keep the better of the two masks and remove the other pair.",
                )
            )
    return findings


def near_copies(root: Path, pairs: Sequence[Pair], seen: Sequence[Seen]) -> list[Finding]:
    """Images that show nearly the same as one of another split; equal ones are left out."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, (pair, result) in enumerate(zip(pairs, seen, strict=True)):
        if result.image is not None:
            members[pair.split].append(index)
    found: dict[int, Finding] = {}
    for base, other in combinations(members, 2):
        digests = {i: one.digest for i in members[base] if (one := seen[i].image) is not None}
        equal = set(digests.values())
        asked = [
            i
            for i in members[other]
            if i not in found and (one := seen[i].image) is not None and one.digest not in equal
        ]
        queries = [one for i in asked if (one := seen[i].image) is not None]
        others = [one for i in members[base] if (one := seen[i].image) is not None]
        for match in near_duplicates(queries, others):
            index = asked[match.query]
            name = below(root, pairs[members[base][match.other]].sample.image)
            how = ", mirrored or turned" if match.turned else ""
            found[index] = Finding(
                "near-duplicate",
                below(root, pairs[index].sample.image),
                f"shows nearly the same as {name}{how}",
                _REMOVE,
            )
    return [found[i] for i in sorted(found)]


def same_masks(root: Path, pairs: Sequence[Pair], seen: Sequence[Seen]) -> list[Finding]:
    """Masks that agree in every pixel though their images differ, beyond what is by accident."""
    first: dict[bytes, int] = {}
    findings = []
    for index, (pair, result) in enumerate(zip(pairs, seen, strict=True)):
        mask = pair.sample.mask
        if mask is None or result.mask_digest is None or not result.rich or result.image is None:
            continue
        at = first.setdefault(result.mask_digest, index)
        other, image = pairs[at].sample.mask, seen[at].image
        if at == index or other is None or image is None or image.digest == result.image.digest:
            continue
        findings.append(
            Finding(
                "same mask",
                below(root, mask),
                f"is the same as {below(root, other)}, and their images differ",
                "Export the mask of this image again; keep it if the images are copies of one.",
            )
        )
    return findings


def groups_in_two_splits(pairs: Sequence[Pair]) -> list[Finding]:
    """Groups, where they are given, that lie in more than one split."""
    splits: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        group = pair.sample.group
        if group is not None and pair.split not in splits[group]:
            splits[group].append(pair.split)
    return [
        Finding(
            "group in two splits",
            INFO_FILE,
            f"the group {group!r} is in {' and in '.join(there)}",
            "Move its images into one split, or import again with --val-fraction.",
        )
        for group, there in sorted(splits.items())
        if len(there) > 1
    ]


def unlearnable_classes(
    info: DatasetInfo, pairs: Sequence[Pair], seen: Sequence[Seen]
) -> list[Finding]:
    """Classes that no mask shows, or that val shows and train does not."""
    by_split: dict[str, set[int]] = defaultdict(set)
    for pair, result in zip(pairs, seen, strict=True):
        by_split[pair.split] |= (result.counts or {}).keys()
    anywhere = set().union(*by_split.values())
    findings = []
    for index, name in enumerate(info.classes):
        if index == info.ignore_index:
            continue
        if index not in anywhere:
            findings.append(
                Finding(
                    "class never seen",
                    INFO_FILE,
                    f"no mask has the class {name!r} (id {index})",
                    "Label some of it, or take it out of classes.",
                )
            )
        elif "train" in by_split and index in by_split["val"] and index not in by_split["train"]:
            findings.append(
                Finding(
                    "class only in val",
                    INFO_FILE,
                    f"val has the class {name!r} (id {index}) and train has none of it",
                    "Move some images that show it from val to train.",
                )
            )
    return findings
