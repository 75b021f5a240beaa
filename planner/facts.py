"""Finds, loads and checks the tables in data/; a fact without a complete source is refused.

Tables are read on first use and kept. Only the standard library is imported, and looking up one model reads
one index file (about 1 ms).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from .dataclass import dataclass
from .errors import FactError, InputError, UnknownModelError, hint
from .schema import Source, SourceKind

if TYPE_CHECKING:  # imported where they are used: each is a share of a cold start
    from pathlib import Path

    from .fact_types import (
        Accelerator,
        CapacityFact,
        Convention,
        DatasetFact,
        Price,
        RateContext,
        RegretFact,
    )

_NO_NUMBERS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class LawFact:
    """A published law for the learning rate. One whose `status` is "incomplete" cannot be evaluated.

    `optimum_ratio` holds FAMILY_low and FAMILY_high: the best rate of a sweep over the law's rate. Where
    `population` is true, any family has a rate: `multipliers` and `exponents` are those of single families, 1 and
    `model_pow` those of the others. Such a law has the `spread` of best rates around it (standard deviations of log
    rate, for known_family and unknown_family), the `covariance` of its coefficients by column, the `families`,
    `methods` and `ranges` that it was fitted on, and a `caution` where its fit is in doubt. `rates`, by family (and
    `population`) and rank, take the place of the formula's value where a law has them."""

    id: str
    title: str
    status: Literal["complete", "incomplete"]
    form: str
    lora_multiplier: float
    reference_width: int
    lora_pow: float
    fitted_on: str
    source: Source
    base: float | None = None
    exponents: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    regret_text: str = ""
    regret_percent: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    optimum_ratio: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    multipliers: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    model_pow: float = 0.0
    rank_pow: float = 0.0
    rank_sat_pow: float = 0.0
    batch_pow: float = 0.0
    steps_pow: float = 0.0
    alpha_pow: float = 0.0
    population: bool = False
    families: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("lora",)
    spread: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)
    covariance: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    caution: str = ""
    notes: str = ""


@dataclass(frozen=True)
class ModelFact:
    """A model of the catalogue. `architecture` is equal for models of the same shapes."""

    model_id: str
    architecture: str
    model_type: str
    status: str
    source: Source
    published_params: int | None = None
    published_from: str = ""
    built_params: int | None = None
    note: str = ""


# Where things are


@cache
def _folder(name: str) -> str:
    here = os.path.dirname(os.path.realpath(__file__))
    for candidate in (os.path.join(here, name), os.path.join(os.path.dirname(here), name)):
        # `reports` is also a word for a package; a folder of Python modules is not the one that is meant.
        if os.path.isdir(candidate) and not os.path.exists(os.path.join(candidate, "__init__.py")):
            return candidate
    raise FactError(f"the folder {name}/ is neither in the package nor beside it; install lora-plan again.")


def data_dir() -> Path:
    """The folder of facts: inside the installed package, else beside it in a checkout."""
    from pathlib import Path

    return Path(_folder("data"))


def reports_dir() -> Path:
    """The folder of report templates, found in the same way."""
    from pathlib import Path

    return Path(_folder("reports"))


def read_data(*parts: str) -> str:
    """The text of a file in data/."""
    path = os.path.join(_folder("data"), *parts)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise FactError(f"{path} cannot be read: {error}.") from error


# Reading and checking


def source_from(table: object, owner: str) -> Source:
    """A complete source, or FactError naming the fact that lacks it."""
    if not isinstance(table, Mapping):
        raise FactError(f"{owner} has no source; give title, url, locator, date and kind.")
    values: dict[str, Any] = {key: table.get(key) for key in ("title", "url", "locator", "date", "kind")}
    for key, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise FactError(f"the source of {owner} has no {key}.")
    kind, date = values["kind"], str(values["date"])
    kinds = get_args(SourceKind)
    if kind not in kinds:
        raise FactError(f"the source of {owner} has kind {kind!r}, expected one of {', '.join(kinds)}.")
    if not re.match(r"\d{4}(-\d\d(-\d\d)?)?$", date):
        raise FactError(f"the source of {owner} is dated {date!r}; write YYYY, YYYY-MM or YYYY-MM-DD.")
    return Source(**values)


def _table_of(name: str) -> dict[str, Any]:
    """A TOML table as tools/import_facts.py put it into JSON, which reads ten times faster."""
    stem = name.removesuffix(".toml")
    try:
        table: dict[str, Any] = json.loads(read_data("compiled", f"{stem}.json"))
    except ValueError as error:
        raise FactError(f"data/compiled/{stem}.json cannot be read: {error}.") from error
    return table


def parse_entry(kind: type[Any], raw: Mapping[str, Any], owner: str) -> Any:
    """One table of a TOML file as its dataclass; unknown or missing fields and bad figures are refused. Exponents
    (names in _pow) may be negative."""
    values: dict[str, Any] = {**raw, "source": source_from(raw.get("source"), owner)}
    for key, value in values.items():
        if isinstance(value, list):
            values[key] = tuple(value)
        elif isinstance(value, dict):
            values[key] = MappingProxyType(value)
        elif isinstance(value, (int, float)) and not value >= 0 and not key.endswith("_pow"):
            raise FactError(f"{owner}: {key} is {value}, expected a figure that is not negative.")
    try:
        return kind(**values)
    except TypeError as error:
        raise FactError(f"{owner}: {error}.") from error


def entries(name: str, key: str, kind: type[Any], label: str) -> tuple[Any, ...]:
    """The entries of a TOML table, each checked."""
    raw = _table_of(name).get(key)
    if not isinstance(raw, list):
        raise FactError(f"{name} has no [[{key}]].")
    return tuple(parse_entry(kind, entry, f"{name}: {entry.get(label, '?')}") for entry in raw)


@cache
def accelerators() -> tuple[Accelerator, ...]:
    """Every accelerator of accelerators.toml."""
    from .fact_types import Accelerator

    return entries("accelerators.toml", "accelerator", Accelerator, "name")


@cache
def prices() -> tuple[Price, ...]:
    """Every price of prices.toml."""
    from .fact_types import Price

    return entries("prices.toml", "price", Price, "accelerator")


@cache
def datasets() -> tuple[DatasetFact, ...]:
    """Every dataset of datasets.toml; one without a figure is refused."""
    from .fact_types import DatasetFact, DatasetKind, FactBasis

    found: tuple[DatasetFact, ...] = entries("datasets.toml", "dataset", DatasetFact, "name")
    for fact in found:
        if fact.kind not in get_args(DatasetKind) or fact.basis not in get_args(FactBasis):
            raise FactError(f"datasets.toml: {fact.name} has kind {fact.kind!r} and basis {fact.basis!r}.")
        prompts = fact.examples if fact.kind == "rl" else None
        if not (fact.total_tokens or fact.loss_tokens or fact.episodes or prompts):
            raise FactError(f"datasets.toml: {fact.name} has neither tokens nor episodes.")
    return found


@cache
def laws() -> tuple[LawFact, ...]:
    """Every law of laws.toml."""
    found: tuple[LawFact, ...] = entries("laws.toml", "law", LawFact, "id")
    for fact in found:
        if (fact.status == "complete") != (fact.base is not None):
            raise FactError(f"laws.toml: {fact.id} is {fact.status} but its base is {fact.base}.")
    return found


@cache
def capacities() -> Mapping[str, CapacityFact]:
    """Bits per parameter by id, from capacity.toml."""
    from .fact_types import CapacityFact

    found = entries("capacity.toml", "capacity", CapacityFact, "id")
    return MappingProxyType({fact.id: fact for fact in found})


@cache
def regret_laws() -> tuple[RegretFact, ...]:
    """Every law of regret.toml: dense models first, then mixtures of experts."""
    from .fact_types import RegretFact

    return entries("regret.toml", "law", RegretFact, "id")


@cache
def rate_contexts() -> Mapping[str, RateContext]:
    """What moves a learning rate away from the laws' set-up, by id, from rate_contexts.toml."""
    from .fact_types import RateContext

    found = entries("rate_contexts.toml", "context", RateContext, "id")
    for fact in found:
        if not fact.low <= fact.value <= fact.high:
            raise FactError(
                f"rate_contexts.toml: {fact.id} has {fact.value} outside {fact.low} to {fact.high}."
            )
    return MappingProxyType({fact.id: fact for fact in found})


@cache
def conventions() -> tuple[Convention, ...]:
    """The parametrisations of LoRA that trainers use, from conventions.toml."""
    from .fact_types import Convention

    return entries("conventions.toml", "convention", Convention, "id")


# Looking up


def plain(name: str) -> str:
    """A name without case, spaces and punctuation, so that "A100-SXM4-80GB" and "a100 sxm4 80gb" agree."""
    return re.sub(r"[^a-z0-9.]+", "", name.lower())


def _table(facts: Iterable[Any], label: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fact in facts:
        for name in (getattr(fact, label), *getattr(fact, "aliases", ())):
            if found.setdefault(plain(name), fact) is not fact:
                other = getattr(found[plain(name)], label)
                raise FactError(f"{name} names both {other} and {getattr(fact, label)}.")
    return found


@cache
def _accelerator_table() -> dict[str, Any]:
    return _table(accelerators(), "name")


@cache
def _dataset_table() -> dict[str, Any]:
    return _table(datasets(), "name")


def _find(field_name: str, name: str, table: Mapping[str, Any], names: list[str], where: str) -> Any:
    if not isinstance(name, str) or not plain(name):
        raise InputError(field_name, name, f"a name such as {names[0]}", f"{where} lists what is known.")
    if (fact := table.get(plain(name))) is not None:
        return fact
    raise InputError(field_name, name, "a known name", f"{where} lists what is known.{hint(name, names)}")


def accelerator(name: str) -> Accelerator:
    """The accelerator of this name or alias, in any case and punctuation; torch's device names work too."""
    table = _accelerator_table()
    if isinstance(name, str) and plain(name) not in table:
        name = re.sub(
            r"^(\W*(nvidia|amd|intel|google|geforce)\W+)+|\W+GPU\W*$", "", name, flags=re.IGNORECASE
        )
        name = f"RTX {name}" if plain(f"RTX {name}") in table else name  # 3060, 4070 Ti
    names = [spelling for fact in accelerators() for spelling in (fact.name, *fact.aliases)]
    fact: Accelerator = _find("accelerator", name, table, names, "data/accelerators.toml")
    return fact


def dataset(name: str) -> DatasetFact:
    """The dataset of this name or alias, whatever its case and punctuation."""
    names = [spelling for fact in datasets() for spelling in (fact.name, *fact.aliases)]
    fact: DatasetFact = _find("dataset", name, _dataset_table(), names, "`lora-plan datasets`")
    return fact


def law(id: str) -> LawFact:
    """The learning-rate law of this id."""
    table = {plain(fact.id): fact for fact in laws()}
    fact: LawFact = _find("law", id, table, [fact.id for fact in laws()], "data/laws.toml")
    return fact


def convention(name: str, field_name: str = "convention") -> Convention:
    """The parametrisation of this id or alias."""
    table = _table(conventions(), "id")
    names = [spelling for fact in conventions() for spelling in (fact.id, *fact.aliases)]
    fact: Convention = _find(field_name, name, table, names, "`lora-plan convert --help`")
    return fact


def prices_of(name: str, kind: str | None = None) -> tuple[Price, ...]:
    """The prices of an accelerator, newest first; only "on-demand" or "spot" ones where `kind` is given."""
    known = accelerator(name).name
    found = [price for price in prices() if price.accelerator == known and kind in (None, price.kind)]
    return tuple(sorted(found, key=lambda price: price.date, reverse=True))


# Models


@cache
def _index_text() -> str:
    return read_data("models", "index.json")


@cache
def model_index() -> Mapping[str, Any]:
    """The catalogue as stored: `models` (id -> fields), `aliases` (id -> model id), `compiled` (date)."""
    try:
        index: Mapping[str, Any] = json.loads(_index_text())
    except ValueError as error:
        raise FactError(f"data/models/index.json cannot be read: {error}.") from error
    return index


@cache
def _raw_model(model_id: str) -> dict[str, Any] | None:
    """The stored fields of a model. The index has one model a line, so that one is found without the rest."""
    text = _index_text()
    key = f"\n{json.dumps(model_id, ensure_ascii=False)}: {{"
    start = text.find(key)
    if start < 0:
        return None
    line = text[start + len(key) - 1 : text.index("\n", start + 1)]
    raw: dict[str, Any] = json.loads(line.rstrip(","))
    return raw


def is_model(model_id: str) -> bool:
    """Whether this exact id has a config in the catalogue."""
    return _raw_model(model_id) is not None


@cache
def _compiled() -> str:
    first = _index_text().split("\n", 1)[0]
    date: str = json.loads(first.rstrip(",") + "}")["compiled"]
    return date


def model_ids() -> tuple[str, ...]:
    """The ids of the models that have a config in the catalogue."""
    return tuple(model_index()["models"])


def model_aliases() -> Mapping[str, str]:
    """Other ids of the same architectures, each with the model that stands for it."""
    aliases: Mapping[str, str] = model_index()["aliases"]
    return aliases


def model(model_id: str) -> ModelFact:
    """The catalogue entry of this exact id; resolve.py is lenient about spelling."""
    raw = _raw_model(model_id)
    if raw is None:
        raise UnknownModelError(f"{model_id} is not in the catalogue.{hint(model_id, model_ids())}")
    title, url, locator = raw["source"]
    table = {"title": title, "url": url, "locator": locator, "date": _compiled(), "kind": "config"}
    values = {key: value for key, value in raw.items() if key != "source"}
    return ModelFact(model_id=model_id, source=source_from(table, model_id), **values)


def model_config_path(model_id: str) -> Path:
    """The file that holds the config of a model of the catalogue."""
    return data_dir() / "models" / config_name(model_id)


def config_name(model_id: str) -> str:
    """The name of that file."""
    return f"{model_id.replace('/', '__')}.json"
