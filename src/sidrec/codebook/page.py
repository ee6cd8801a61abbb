"""A codebook's health, or a change of it, as one HTML page that opens from disk without a network.

The plots are Plotly's, whose code is in the page. Titles of items are data: they are escaped wherever they stand.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidrec.codebook import plots
from sidrec.codebook.items import traffic_of
from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {plots.INK}; }}
body {{ max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .2rem; }}
p.note {{ color: #52606d; margin: .1rem 0 .6rem; max-width: 50rem; }}
.say {{ padding: .7rem 1rem; border-left: 5px solid #2f855a; background: #f0faf4; margin: 1rem 0; }}
.say.alarm {{ border-color: #c53030; background: #fdf2f2; }}
table {{ border-collapse: collapse; margin: .6rem 0; }} td, th {{ padding: .25rem .8rem; text-align: right; }}
th {{ border-bottom: 2px solid {plots.PALE}; font-weight: 600; }}
td:first-child, th:first-child, .text {{ text-align: left; }} tr.next td {{ border-top: 1px solid {plots.PALE}; }}
b.pass {{ color: #2f855a; }} b.fail, b.inconclusive {{ color: #c53030; }}
i.was {{ color: {plots.OTHER}; font-style: normal; }}
"""


def health_page(health: Mapping[str, Any], *, title: str, catalog: Catalog) -> str:
    """Return the page of a codebook's health record (`health.json`).

    Raises:
        UsageError: Plotly is not installed.
    """
    return html_page(f"Codebook health: {title}", _health_parts(health, catalog), style=_STYLE)


def diff_page(difference: Mapping[str, Any], *, title: str) -> str:
    """Return the page of a `diff` between two catalogues.

    Raises:
        UsageError: Plotly is not installed.
    """
    return html_page(f"Semantic IDs: {title}", _diff_parts(difference), style=_STYLE)


def _health_parts(health: Mapping[str, Any], catalog: Catalog) -> Iterator[str]:
    report, levels = health["report"], health["levels"]
    alarm, slots = report["alarm"], report["mutual_information"] is not None
    word = "slot" if slots else "level"
    yield _say(f"{alarm['sentence']}.", bad=alarm["raised"])
    if "sentence" in health:
        yield _say(health["sentence"])
    if health.get("gates"):
        yield "<h2>Gates</h2><table>"
        for gate in health["gates"]:
            name, result, said = (html.escape(str(gate[key])) for key in ("name", "result", "sentence"))
            yield f"<tr><td>{name}</td><td><b class='{result}'>{result}</b></td><td class='text'>{said}</td></tr>"
        yield "</table>"
    yield f"<h2>Figures by {word}</h2>"
    yield (
        "<p class='note'>As published. Catalogue: every item counts once. Traffic: as often as it is bought. Served: "
        "as often as it was in an answer. Normalised entropy is 1 and Gini 0 where all codes are used alike.</p>"
    )
    yield from _level_table(report, word)
    before, after = report["identity"]["before"], report["identity"]["after"]
    yield (
        f"<p>{after['items']:,} items. As quantized they had {before['distinct']:,} distinct semantic IDs (a collision "
        f"rate of {before['collision_rate']:.2%}, at most {before['max_bucket']:,} items on one, "
        f"{before['uniquely_identified']:.2%} of the items alone on theirs); as published {after['distinct']:,}, and "
        f"{after['uniquely_identified']:.2%} of the items have one of their own.</p>"
    )
    size, codes = levels[0]["codebook_size"], catalog.codes[:, : len(levels)]
    traffic = traffic_of(catalog.table())
    yield _plot(
        "How often each code is used",
        "One square a code, darker for more items, by the logarithm; a white square is a dead code. A few dark squares "
        "among pale ones are codes that took over their neighbours' items.",
        plots.usage_map(codes, size, word),
        "usage",
    )
    yield _plot(
        "Sizes of the codes, largest first",
        "A flat line is a balanced codebook; where it ends, the dead codes begin. Where the traffic's line is much "
        "steeper than the catalogue's, few codes carry most of what people see.",
        plots.bucket_curves(codes, size, traffic, word),
        "buckets",
    )
    yield _plot(
        "What the codes mean",
        "The first codes of most traffic, and in each the second ones with their most popular titles, as large as "
        "their traffic; the empty part of a box is what is not drawn. Point at a box for titles that do not fit. A "
        "good codebook puts like things into one box.",
        plots.title_tree(catalog, traffic),
        "tree",
    )
    if report["residual"] is not None:
        yield _plot(
            "How well the codes explain the items",
            "Share of an item's vector that its codes leave over. New items far to the right of fitted ones mean that "
            f"the codewords no longer span the catalogue.{_compared(report['residual'])}",
            plots.residuals(report["residual"]),
            "residuals",
        )
    if report["prefix_stability"] is not None:
        kept = report["prefix_stability"]
        depths = [f"first {depth + 1}" for depth in range(len(kept["items"]))]
        yield _plot(
            "What stayed since the parent",
            "Share of published items, and of their traffic, that keep their first codes. The model knows an item by "
            "them: what is lost at the first code is lost most.",
            plots.kept_bars(depths, kept["items"], kept["traffic"]),
            "stability",
        )
    if slots:
        chance = report.get("mutual_information_by_chance")
        said = "" if chance is None else f" Slots that were shuffled, so share nothing, have {chance:.2f} here."
        yield _plot(
            "How much the slots repeat one another",
            f"Normalised mutual information: 1 where one slot says all that the other says.{said}",
            plots.information_map(report["mutual_information"]),
            "information",
        )
    if report["expert_load"] is not None:
        yield _plot(
            "How the experts share the load",
            "Mean gate of each expert; the dashed line is the even share. One tall bar means that the others learn "
            "little.",
            plots.load_bars(report["expert_load"]["shares"]),
            "experts",
        )


def _diff_parts(difference: Mapping[str, Any]) -> Iterator[str]:
    items, moved = difference["items"], difference["moved"]
    if not difference.get("same_lineage", True):
        yield _say("The two are of different lineages: equal codes mean nothing.", bad=True)
    yield _say(
        f"{moved['items']:,} of {items['common']:,} items have another semantic ID ({moved['share']:.1%} of the items, "
        f"{moved['traffic']:.1%} of the traffic); {difference['history_tokens_rewritten']:.1%} of the tokens in "
        f"histories are rewritten and {difference['history_tokens_lost']:.1%} lost. {items['added']:,} items are new, "
        f"{items['removed']:,} removed, {items['restored']:,} back, {items['absent']:,} absent."
    )
    rows = difference["shared_prefix"]
    total = max(1, sum(row["items"] for row in rows))
    yield _plot(
        "How much of the semantic ID is still the same",
        "Items by the number of leading codes they keep; the last bars kept all.",
        plots.kept_bars(
            [f"{row['depth']} kept" for row in rows],
            [row["items"] / total for row in rows],
            [row["traffic"] for row in rows],
        ),
        "prefixes",
    )
    yield "<h2>Changes by level</h2>"
    dead = difference["dead_codes"]
    yield "<table><tr><th>level</th><th>items changed</th><th>dead codes before</th><th>after</th></tr>"
    for level, share in enumerate(difference["changed_by_level"]):
        ends = [str(side[level]) if level < len(side) else "" for side in (dead["before"], dead["after"])]
        yield f"<tr><td>{level}</td><td>{share:.1%}</td><td>{ends[0]}</td><td>{ends[1]}</td></tr>"
    yield "</table>"
    shared = difference["collisions"]
    yield (
        f"<p>Items that share the quantizer's codes with another one: {shared['before']:,} before, {shared['after']:,} "
        f"after ({shared['created']:,} began to, {shared['healed']:,} ceased); {shared['pairs_created']:,} pairs of "
        f"them are new, {shared['pairs_healed']:,} are gone.</p>"
    )
    if difference["top_movers"]:
        yield "<h2>Moved items that most people see</h2>"
        yield (
            "<p class='note'>Codes from the first changed one on stand out: what the model knew of the item by them is "
            "gone.</p><table><tr><th>item</th><th class='text'>title</th><th>traffic</th><th>before</th><th>after</th>"
            "</tr>"
        )
        for mover in difference["top_movers"]:
            before, after = (_codes(mover[side], mover["shared_prefix"]) for side in ("before", "after"))
            item, name = html.escape(mover["item_id"]), html.escape(mover["title"])
            yield f"<tr class='next'><td>{item}</td><td class='text'>{name}</td><td>{mover['traffic']:.2%}</td>"
            yield f"<td>{before}</td><td>{after}</td></tr>"
        yield "</table>"


def html_page(title: str, parts: Iterator[str], *, style: str) -> str:
    """Return a page of these parts under their title, Plotly's code inside.

    Raises:
        UsageError: Plotly is not installed.
    """
    script, named = _plotly_script(), html.escape(title)
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{named}</title>"
    top = f"<style>{style}</style><script>{script}</script></head><body><h1>{named}</h1>"
    return "".join((head, top, *parts, "</body></html>\n"))


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UsageError(
            "the page needs Plotly, which is not installed", next_step="pip install 'sidrec[reports]', or use --json"
        ) from error
    script: str = get_plotlyjs()
    return script


def _plot(heading: str, note: str, figure: "Figure", name: str) -> str:
    """Return a plot under its heading and how to read it; `name` is its own, so equal pages are equal byte by byte."""
    config = {"displayModeBar": False, "responsive": True}
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    return f"<h2>{heading}</h2><p class='note'>{note}</p>{drawn}"


def _say(sentence: str, *, bad: bool = False) -> str:
    return f"<div class='say{' alarm' if bad else ''}'>{html.escape(sentence[:1].upper() + sentence[1:])}</div>"


def _compared(residual: Mapping[str, Any]) -> str:
    if residual["new"] is None:
        return ""
    low, high = residual["auc_interval"]
    return (
        f" Here the mean of new ones is {residual['ratio']:.2f} times that of fitted ones, and a new one exceeds a "
        f"fitted one with probability {residual['auc']:.2f} (95 % interval {low:.2f} to {high:.2f})."
    )


def _codes(codes: Sequence[int], kept: int) -> str:
    """Return a semantic ID whose codes from the first changed one on stand out."""
    return " ".join(f"<i class='was'>{code}</i>" if at >= kept else str(code) for at, code in enumerate(codes))


def _level_table(report: Mapping[str, Any], word: str) -> Iterator[str]:
    names = (word, "", "used", "dead codes", "perplexity", "normalised entropy", "Gini", "largest code")
    yield "<table><tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    views = {name: view for name, view in report["views"].items() if "absent" not in view}
    items = max(1, report["identity"]["after"]["items"])
    for level in range(len(views["catalogue"])):
        for place, (name, view) in enumerate(views.items()):
            row = view[level]
            # Reports of the first version have the largest code of the catalogue in items alone.
            largest = row["largest_share"] if "largest_share" in row else row["max_bucket"] / items
            cells = (
                str(level) if place == 0 else "",
                name,
                f"{row['utilisation']:.1%}",
                str(row["dead_codes"]),
                f"{row['perplexity']:.1f}",
                f"{row['normalised_entropy']:.3f}",
                f"{row['gini']:.3f}",
                f"{largest:.2%}",
            )
            yield f"<tr{' class=next' if place == 0 else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"
    yield from (
        f"<p class='note'>{name}: {view['absent']}.</p>" for name, view in report["views"].items() if "absent" in view
    )
