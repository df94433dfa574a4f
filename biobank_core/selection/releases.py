"""Releases of tools: their order, and ranges such as `>=2,<3`.

The order:

1. `+galaxyN` at the end (the revision of a Galaxy wrapper) is taken off and is the second key;
   none comes before `+galaxy0`.
2. What remains is compared by PEP 440 where it parses (`1!2.0rc1`, `2.3.post1`, `v1.2`).
3. Anything else is put in by the numbers it begins with (`1.1.2w` after `1.1.2` and all of its
   PEP 440 variants, before `1.1.3`); the rest is compared naturally: digits as numbers, before
   other text. What begins with no number (`latest`) comes before all that do.

A range is a list of clauses, all of which must hold: an operator (`<` `<=` `>` `>=` `==` `!=`
`~=`) and a version; a version alone means `==`. Between PEP 440 versions a clause means what it
means to pip, `==2.*` included. A clause without `+galaxyN` does not look at it: `==2.2.0` and
`<=2.2.0` hold `2.2.0+galaxy1`. A pre-release is in a range only if the range names one (other
than by `!=`). An unknown release is in no range, and neither is a release without a number in a
clause that orders it against one: that would be a guess.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from packaging.specifiers import InvalidSpecifier, Specifier
from packaging.version import Version

from biobank_core.errors import InputError

_GALAXY: Final = re.compile(r"(?P<base>.*?)\+galaxy(?P<revision>[0-9]+(?:\.[0-9]+)*)", re.DOTALL)
_LEADING_NUMBERS: Final = re.compile(
    r"[vV]?(?P<numbers>[0-9]+(?:\.[0-9]+)*)(?P<rest>.*)", re.DOTALL
)
_DIGITS: Final = re.compile(r"([0-9]+)")
# A `!` may only stand after the epoch of a version, as in 1!2.0.
_CLAUSE: Final = re.compile(
    r"(?P<operator><=|>=|==|!=|~=|<|>|)\s*(?P<version>(?:[^<>=!~,;|\s]|(?<=[0-9])!(?!=))+)"
)

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ALLOWED: Final = (
    "a release range is one or more of <, <=, >, >=, ==, !=, ~= and a version, joined by commas, "
    "such as '<3', '>=2,<3', '!=2.1' or '2.2.0' alone"
)

# Galaxy's own column for a tool version holds 255 characters; nobody means more.
_MAX_CHARS: Final = 1000

# Numbers as (digits without leading zeros: how many, which): any length, no int() limit.
_Number: TypeAlias = tuple[int, str]


@dataclass(frozen=True, slots=True)
class _Release:
    base: str
    version: Version | None
    numbers: tuple[_Number, ...]
    rest: tuple[tuple[int, _Number, str], ...]
    galaxy: tuple[_Number, ...]

    def base_key(self) -> tuple[Any, ...]:
        if self.version is not None:
            return (1, _number(str(self.version.epoch)), self.numbers, 0, self.version)
        return (1 if self.numbers else 0, _number("0"), self.numbers, 1, self.rest)

    def key(self) -> tuple[Any, ...]:
        return (self.base_key(), self.galaxy)

    @property
    def is_numbered(self) -> bool:
        return self.version is not None or bool(self.numbers)


@dataclass(frozen=True, slots=True)
class _Clause:
    operator: str
    wanted: _Release
    # Set where PEP 440 itself defines what the clause means.
    specifier: Specifier | None

    def contains(self, release: _Release) -> bool:
        if self.specifier is not None and release.version is not None:
            return self.specifier.contains(release.version, prereleases=True)
        if self.operator not in _COMPARE:  # ~= and ==2.* mean something to PEP 440 only
            return self.operator == "!=*"
        if self.operator not in ("==", "!=") and self.wanted.is_numbered != release.is_numbered:
            return False
        compare = _COMPARE[self.operator]
        if self.wanted.galaxy:
            return compare(release.key(), self.wanted.key())
        return compare(release.base_key(), self.wanted.base_key())


@dataclass(frozen=True, slots=True)
class ReleaseRange:
    """A parsed range; `text` is how it was written."""

    text: str
    _clauses: tuple[_Clause, ...]
    _names_prerelease: bool

    def contains(self, release: str | None) -> bool:
        """Whether a release is in the range; an unknown one (None, or empty) never is."""
        if not release or not release.strip():
            return False
        known = _parsed(release)
        if known.version is not None and known.version.is_prerelease and not self._names_prerelease:
            return False
        return all(clause.contains(known) for clause in self._clauses)


def matches(release: str | None, spec: str) -> bool:
    """Whether a release is in the range `spec`. Raises InputError for a malformed spec."""
    return parse_range(spec).contains(release)


def sort_key(release: str) -> tuple[Any, ...]:
    """A key that sorts releases, oldest first. `1.0` and `1.0.0` have the same one."""
    return _parsed(release).key()


@functools.lru_cache(maxsize=256)
def parse_range(spec: str) -> ReleaseRange:
    """The range that a text describes. Raises InputError naming what is allowed."""
    if len(spec) > _MAX_CHARS:
        raise InputError(_ALLOWED, field="release", value=spec)
    clauses = tuple(_clause(part.strip(), spec) for part in spec.split(","))
    return ReleaseRange(
        text=spec.strip(),
        _clauses=clauses,
        _names_prerelease=any(
            clause.operator != "!="
            and clause.wanted.version is not None
            and clause.wanted.version.is_prerelease
            for clause in clauses
        ),
    )


def _clause(text: str, spec: str) -> _Clause:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise InputError(_ALLOWED, field="release", value=spec)
    sign, version = match["operator"] or "==", match["version"]
    if version.endswith(".*") or sign == "~=":
        wanted = _parsed(version.removesuffix(".*"))
        try:
            specifier = Specifier(sign + version)
        except InvalidSpecifier as exc:
            raise InputError(_ALLOWED, field="release", value=spec) from exc
        return _Clause(operator=f"{sign}*", wanted=wanted, specifier=specifier)
    if "*" in version:
        raise InputError(_ALLOWED, field="release", value=spec)
    wanted = _parsed(version)
    plain = wanted.version is not None and wanted.version.local is None and not wanted.galaxy
    return _Clause(
        operator=sign,
        wanted=wanted,
        specifier=Specifier(f"{sign}{wanted.version}") if plain else None,
    )


@functools.lru_cache(maxsize=8192)
def _parsed(release: str) -> _Release:
    text = release.strip()
    match = _GALAXY.fullmatch(text)
    base = match["base"] if match else text
    galaxy = tuple(map(_number, match["revision"].split("."))) if match else ()
    version = _pep440(base)
    if version is not None:
        numbers = _without_trailing_zeros(tuple(_number(str(n)) for n in version.release))
        return _Release(base=base, version=version, numbers=numbers, rest=(), galaxy=galaxy)
    leading = _LEADING_NUMBERS.fullmatch(base)
    numbers = tuple(map(_number, leading["numbers"].split("."))) if leading else ()
    return _Release(
        base=base,
        version=None,
        numbers=_without_trailing_zeros(numbers),
        rest=_natural(leading["rest"] if leading else base),
        galaxy=galaxy,
    )


def _pep440(text: str) -> Version | None:
    try:
        return Version(text)
    except ValueError:  # InvalidVersion is one; so are more digits than int() reads
        return None


def _number(digits: str) -> _Number:
    significant = digits.lstrip("0") or "0"
    return len(significant), significant


def _without_trailing_zeros(numbers: tuple[_Number, ...]) -> tuple[_Number, ...]:
    # 2, 2.0 and 2.0.0 are one release, as in PEP 440; "0" itself stays a number.
    end = len(numbers)
    while end > 1 and numbers[end - 1] == (1, "0"):
        end -= 1
    return numbers[:end]


def _natural(text: str) -> tuple[tuple[int, _Number, str], ...]:
    return tuple(
        (0, _number(part), "") if index % 2 else (1, (0, ""), part)
        for index, part in enumerate(_DIGITS.split(text))
        if part
    )
