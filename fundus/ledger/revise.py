"""The risk of a newly calibrated bundle, set in rows that the same networks measured before."""

from deltalake import WriterProperties

from fundus.anatomy.risk import RiskModel
from fundus.ledger import table
from fundus.ledger.runs import Run
from fundus.storage.places import Place

CLOSE_TO = 1e-9


def recalibrate(place: Place, run: Run, model: RiskModel | None) -> int:
    """Set the risk of this run's bundle in rows that the same networks measured.

    It is one transaction, and no picture is read. Rows whose risk is already the same stay as they
    are, whichever bundle they name.

    Args:
        place: the results location.
        run: the run; its bundle is named by the changed rows.
        model: the bundle's risk model; None sets the risk to null.

    Returns:
        The number of changed rows.
    """
    risk, referable = "cast(null as double)", "cast(null as boolean)"
    if model:
        risk = _in_sql(model)
        referable = f"{risk} >= {model.threshold!r}"
    same = f"coalesce(abs(risk - {risk}) <= {CLOSE_TO}, risk is null and {risk} is null)"
    same += f" and referable is not distinct from ({referable})"
    done = table.opened(place).update(
        updates={"risk": risk, "referable": referable, "bundle": f"'{run.bundle}'"},
        predicate=f"measuring = '{run.measuring}' and bundle <> '{run.bundle}' and not ({same})",
        writer_properties=WriterProperties(compression="ZSTD"),
    )
    return done["num_updated_rows"]


def _in_sql(model: RiskModel) -> str:
    """`RiskModel`'s formula in SQL; null if the vCDR or its spread is null."""
    reliability = f"(1 / (1 + power(vcdr_sd / {model.vcdr_deviation!r}, 2)))"
    shift = f"{model.slope!r} * {reliability} * (vcdr - {model.vcdr_mean!r})"
    left_over = f"{model.slope**2!r} * {reliability} * power(vcdr_sd, 2)"
    log_odds = f"({model.intercept!r} + {shift}) / sqrt(1 + pi() / 8 * {left_over})"
    return f"((1 + tanh({log_odds} / 2)) / 2)"
